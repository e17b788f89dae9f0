"""The Numba backend: BLAS products, with the passes between them fused into compiled loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numba
import numpy as np

from fastmlp.backends.base import Backend, Ops
from fastmlp.backends.numpy import PIXEL, Index, NumpyBackend
from fastmlp.kernels.cpu import fused
from fastmlp.optimizers import Step


def rows(X: np.ndarray, index: Index, out: np.ndarray) -> np.ndarray:
    """The rows of X (M, I) that `index` picks, pixels scaled to 0 .. 1 -> x (N, I): out, or a view of X."""
    if X.dtype != np.uint8 and isinstance(index, slice):
        return X[index]  # (N, I), no copy
    if isinstance(index, slice):
        index = np.arange(index.start, index.stop)
    fused.gather(X, index, out.dtype.type(PIXEL if X.dtype == np.uint8 else 1), out)
    return out


def affine(x: np.ndarray, W: np.ndarray, b: np.ndarray, out: np.ndarray, relu: bool) -> None:
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    np.dot(x, W, out=out)  # (N, I)(I, H) -> (N, H)
    fused.bias(out, b, relu)


def softmax_cross_entropy(z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray) -> None:
    """dz = (softmax(z) - onehot(y)) * scale; totals += [sum of losses, right answers]. z, dz (N, O), y (N,)."""
    fused.softmax_cross_entropy(z, y, z.dtype.type(scale), dz, totals)


def backprop_relu(dz: np.ndarray, W: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    np.dot(dz, W.T, out=out)  # (N, O)(O, H) -> (N, H)
    fused.mask(out, a)


@cache
def compiled_update(rule: Callable[..., None]) -> Callable[..., None]:
    """The rule as one compiled loop, made on first use."""
    update: Callable[..., None] = fused.compile_update(rule)
    return update


def update(rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: np.ndarray, h: Step) -> None:
    """The rule over all parameters in one pass. w (P,), g (P,), s (S, P)."""
    compiled_update(rule)(w, g, s, h)


class NumbaBackend(Backend):
    """NumPy's BLAS for the products, Numba for everything between them."""

    name = "numba"
    ops = Ops(rows, affine, softmax_cross_entropy, backprop_relu, NumpyBackend.ops.weight_gradient, update)

    def __init__(self) -> None:
        self.host = NumpyBackend()

    def asarray(self, host: np.ndarray) -> np.ndarray:
        """`host` itself."""
        return host

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """`array` itself."""
        return array

    def zeros(self, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array of zeros."""
        return np.zeros(shape, dtype)

    def tile_rows(self, sizes: Sequence[int]) -> int:
        """As many rows as under NumPy: the products are the same."""
        return self.host.tile_rows(sizes)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[None]:
        """At most `threads` threads in the BLAS products; the compiled loops use one."""
        return self.host.limit_threads(threads)

    def describe(self) -> dict[str, Any]:
        """As NumPy's, with Numba's version."""
        facts = self.host.describe()
        return facts | {"versions": facts["versions"] | {"numba": numba.__version__}}
