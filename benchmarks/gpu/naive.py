"""Naive CuPy: the program as one writes it in NumPy, on the GPU's arrays. float32 throughout."""

from __future__ import annotations

from typing import Any

import cupy as cp
import numpy as np

from benchmarks.peers.contract import Dispatched, NotThere
from benchmarks.peers.jobs import Job
from fastmlp.network import layer_views

from .ours import VERSIONS as OURS
from .ours import event, seconds_between

VERSIONS = {"cupy": OURS["cupy"]}
__all__ = ["VERSIONS", "event", "seconds_between", "trainers"]


class Naive(Dispatched):
    """See `contract.Trainer`."""

    name = "naive CuPy"

    def __init__(self, job: Job):
        if job.optimizer != "momentum":
            raise NotThere("the naive program has momentum only")
        self.job = job
        self.X, self.y = cp.asarray(job.data.x), cp.asarray(job.data.y)
        self.restart()

    def restart(self) -> None:
        """Back to the start."""
        flat = cp.asarray(self.job.start())  # (P,)
        W, b = layer_views(flat, self.job.sizes)
        self.layers = [cp.array(part) for layer in zip(W, b, strict=True) for part in layer]
        self.velocity = [cp.zeros_like(part) for part in self.layers]

    def dispatch(self, order: np.ndarray | None, rates: np.ndarray) -> Any:
        """One epoch, on its way; its loss will be there."""
        total = cp.zeros(())
        picks = [None] if order is None else np.split(order, range(self.job.batch, len(order), self.job.batch))
        for pick, rate in zip(picks, rates, strict=True):
            x, y = (self.X, self.y) if pick is None else (self.X[pick], self.y[pick])  # (n, I), (n,)
            loss, gradient = self.gradient(x, y)
            total += loss * len(y)
            for part, v, g in zip(self.layers, self.velocity, gradient, strict=True):
                v[...] = self.job.beta * v + (1 - self.job.beta) * g
                part -= float(rate) * v
        return total / len(self.y)

    def gradient(self, x: Any, y: Any) -> tuple[Any, list[Any]]:
        """Mean loss of x (n, I), y (n,), and the gradient of each part."""
        W, b = self.layers[::2], self.layers[1::2]
        a = [x]
        for l in range(len(W) - 1):
            a.append(cp.maximum(a[-1] @ W[l] + b[l], 0))  # (n, H)
        z = a[-1] @ W[-1] + b[-1]  # (n, O)
        z -= z.max(axis=1, keepdims=True)
        e = cp.exp(z)
        total, row = e.sum(axis=1), cp.arange(len(y))
        loss = (cp.log(total) - z[row, y]).mean()
        dz = e / total[:, None]  # (n, O)
        dz[row, y] -= 1
        dz /= len(y)
        gradient: list[Any] = []
        for l in range(len(W) - 1, -1, -1):
            gradient[:0] = [a[l].T @ dz, dz.sum(axis=0)]
            if l:
                dz = (dz @ W[l].T) * (a[l] > 0)  # (n, H)
        return loss, gradient

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        return np.concatenate([cp.asnumpy(part).ravel() for part in self.layers])


def trainers(job: Job, library: str) -> list[Naive]:
    """The one way of training, in the precision it has."""
    if job.precision not in ("float32", "tf32"):
        raise NotThere(f"the naive program has no precision {job.precision}")
    return [Naive(job._replace(precision="float32"))]
