"""fastmlp: every CPU backend that works here."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version

import numpy as np

import fastmlp
from fastmlp.backends import CLASSES, load
from fastmlp.backends.base import Backend, Rows
from fastmlp.network import Network
from fastmlp.optimizers import OPTIMIZERS, Settings

from .jobs import Job

VERSIONS = {name: version(name) for name in ("fastmlp", "numpy", "numba", "llvmlite")}
CPU = [name for name in CLASSES if name != "cupy"]


class Ours:
    """A learner of one backend; see `contract.Trainer`."""

    def __init__(self, job: Job, backend: Backend, threads: int):
        self.name = f"fastmlp {backend.name}"
        self.start = job.start()
        self.plan = backend.plan(Network(job.sizes), job.start(), threads)
        self.learner = self.plan.learner(OPTIMIZERS[job.optimizer], Settings(beta=job.beta))
        self.rate = job.rate
        self.rows = Rows(job.raw, job.y)
        self.batch = min(job.batch, len(job.y))

    def restart(self) -> None:
        """Back to the start."""
        self.plan.parameters[:] = self.start
        self.learner.state[:] = 0
        self.learner.steps = 0

    def epoch(self, order: np.ndarray | None) -> float:
        """One epoch, as `fastmlp.train` runs it."""
        rows = self.rows if order is None else replace(self.rows, index=order)
        rates = np.full(-(-len(rows) // self.batch), self.rate)  # (steps,)
        return self.learner.epoch(rows, self.batch, rates).loss

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        return np.asarray(self.plan.parameters)


class OursAsked:
    """A model of one backend; see `contract.Predictor`."""

    def __init__(self, job: Job, backend: str):
        self.name, self.rows = f"fastmlp {backend}", job.raw
        classes, inputs = job.sizes[-1], job.sizes[0]
        self.model = fastmlp.train(  # on next to nothing: its weights are set below
            np.zeros((classes, inputs), job.raw.dtype), np.arange(classes), hidden=job.sizes[1:-1], epochs=1,
            backend=backend, threads=job.threads, strict=True, progress=False,
        )  # fmt: skip
        self.model.parameters[:] = job.start()

    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""
        return self.model.predict_proba(self.rows)

    def labels(self) -> np.ndarray:
        """The most probable classes (N,)."""
        return self.model.predict(self.rows)


def backends() -> list[Backend]:
    """The CPU backends that work here, the fastest first."""
    return [backend for backend in map(load, CPU) if not isinstance(backend, str)]


def trainers(job: Job) -> list[Ours]:
    """One for each backend."""
    return [Ours(job, backend, job.threads) for backend in backends()]


def predictors(job: Job) -> list[OursAsked]:
    """One for each backend."""
    return [OursAsked(job, backend.name) for backend in backends()]
