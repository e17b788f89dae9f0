"""The NumPy backend: runs everywhere, and is the plain statement of what the other backends fuse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import numpy as np

from fastmlp.backends.base import HostBackend, Ops
from fastmlp.backends.plan import OpsPlan
from fastmlp.optimizers import Step

Index = slice | np.ndarray

PIXEL = 1 / 255  # uint8 rows are pixels: 0 .. 255 means 0 .. 1
CHUNK = 16384  # parameters to update at a time: the temporaries of a rule stay in the L1 and L2 caches


def rows(X: np.ndarray, index: Index, out: np.ndarray) -> np.ndarray:
    """The rows of X (M, I) that `index` picks, pixels scaled to 0 .. 1 -> x (N, I): out, or a view of X."""
    if X.dtype == np.uint8:
        np.multiply(X[index], out.dtype.type(PIXEL), out=out)  # (N, I)
        return out
    if isinstance(index, slice):
        return X[index]  # (N, I), no copy
    return np.take(X, index, axis=0, out=out, mode="clip")  # (N, I); "clip" writes into out without a buffer


def affine(x: np.ndarray, W: np.ndarray, b: np.ndarray, out: np.ndarray, relu: bool) -> None:
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    np.dot(x, W, out=out)  # (N, I)(I, H) -> (N, H); 2*N*I*H flop
    out += b  # (H,) over N
    if relu:
        np.maximum(out, 0, out=out)  # backward needs only out > 0, so z is not kept


def softmax_cross_entropy(z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray) -> None:
    """dz = (softmax(z) - onehot(y)) * scale; totals += [sum of losses, right answers]. z, dz (N, O), y (N,)."""
    sample = np.arange(len(z))
    right = np.count_nonzero(z.argmax(axis=1) == y)
    np.subtract(z, z.max(axis=1, keepdims=True), out=dz)  # (N, O), the largest is 0: exp cannot overflow
    target = dz[sample, y]  # (N,)
    np.exp(dz, out=dz)  # (N, O)
    total = dz.sum(axis=1)  # (N,) at least 1: the logarithm is finite
    totals += np.sum(np.log(total) - target, dtype=np.float64), right
    dz *= (dz.dtype.type(scale) / total)[:, None]  # (N, O), softmax(z) * scale
    dz[sample, y] -= dz.dtype.type(scale)


def backprop_relu(dz: np.ndarray, W: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    np.dot(dz, W.T, out=out)  # (N, O)(O, H) -> (N, H)
    out *= a > 0  # (N, H)


def weight_gradient(a: np.ndarray, dz: np.ndarray, dW: np.ndarray, db: np.ndarray, add: bool) -> None:
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    if add:
        dW += np.dot(a.T, dz)  # (H, N)(N, O) -> (H, O)
        db += dz.sum(axis=0)
    else:
        np.dot(a.T, dz, out=dW)
        np.sum(dz, axis=0, out=db)


def update(rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: np.ndarray, h: Step) -> None:
    """The rule over all parameters, a chunk at a time. w (P,), g (P,), s (S, P)."""
    for start in range(0, len(w), CHUNK):
        rule(w, g, s, slice(start, start + CHUNK), h)


@cache
def threadpools() -> Any:
    """The BLAS libraries in this process, found once; none on a Mac, where NumPy uses Accelerate."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


class NumpyBackend(HostBackend):
    """NumPy and its BLAS."""

    name = "numpy"
    ops = Ops(rows, affine, softmax_cross_entropy, backprop_relu, weight_gradient, update)

    def plan(self, sizes: Sequence[int], parameters: np.ndarray, threads: int | None) -> OpsPlan:
        """A network that runs operation by operation."""
        return OpsPlan(self, sizes, parameters)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[Any]:
        """At most `threads` threads in the BLAS products; None leaves BLAS its own choice."""
        if threads is None:
            return nullcontext()
        limit: AbstractContextManager[Any] = threadpools().limit(limits=threads)
        return limit

    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """The BLAS that multiplies, its threads, and NumPy's version."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        pools = threadpools().info()
        return {
            "blas": f"{blas['name']} {blas['version']}",
            "threads": threads or max((pool["num_threads"] for pool in pools), default=None),
            "versions": {"numpy": np.__version__},
        }
