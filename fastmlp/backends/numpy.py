"""The NumPy backend: runs everywhere, and is the plain statement of what the other backends fuse."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import numpy as np

from fastmlp.activations import IDENTITY, KINDS
from fastmlp.backends.base import HostBackend, Ops
from fastmlp.backends.plan import OpsPlan
from fastmlp.dropout import stays
from fastmlp.losses import RULES
from fastmlp.network import Network
from fastmlp.optimizers import Step

Index = slice | np.ndarray

PIXEL = 1 / 255  # uint8 rows are pixels: 0 .. 255 means 0 .. 1
CHUNK = 16384  # parameters to update at a time: the temporaries of a rule stay in the L1 and L2 caches


def rows(X: Any, index: Index, out: np.ndarray) -> Any:
    """The rows of X (M, I) that `index` picks, pixels scaled to 0 .. 1 -> x (N, I): out, or a view of X.

    Of a CSR matrix of SciPy's they are one too, which `affine` and `weight_gradient` take.
    """
    if not isinstance(X, np.ndarray):
        return X[index]
    if X.dtype == np.uint8:
        np.multiply(X[index], out.dtype.type(PIXEL), out=out)  # (N, I)
        return out
    if isinstance(index, slice):
        return X[index]  # (N, I), no copy
    return np.take(X, index, axis=0, out=out, mode="clip")  # (N, I); "clip" writes into out without a buffer


def affine(x: np.ndarray, W: np.ndarray, b: np.ndarray, out: np.ndarray, relu: bool) -> None:
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    if isinstance(x, np.ndarray):
        np.dot(x, W, out=out)  # (N, I)(I, H) -> (N, H); 2*N*I*H flop
    else:
        out[:] = x @ W
    out += b  # (H,) over N
    if relu:
        np.maximum(out, 0, out=out)  # backward needs only out > 0, so z is not kept


def activate(kind: int, z: np.ndarray, a: np.ndarray) -> None:
    """a = f(z). z (N, H) -> a (N, H)."""
    a[:] = KINDS[kind].f(z)


def dropout(a: np.ndarray, share: float, key: np.uint64, first: int, out: np.ndarray) -> None:
    """out = a / (1 - share) where the unit stays in, else 0. a (N, H) -> out (N, H)."""
    place = np.arange(first * a.shape[1], (first + len(a)) * a.shape[1], dtype=np.uint64).reshape(a.shape)  # (N, H)
    with np.errstate(over="ignore"):  # the hash is taken modulo 2^64
        kept = stays(share, key, place)  # (N, H)
    np.multiply(a, kept * a.dtype.type(1 / (1 - share)), out=out)  # (N, H)


def softmax_cross_entropy(
    z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray, weight: np.ndarray | None = None,
    numbers: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
) -> None:  # fmt: skip
    """dz = (softmax(z) - target) * scale; totals += [sum of losses, right answers]. z, dz (N, O), y, weight (N,)."""
    sample, real, tiny = np.arange(len(z)), dz.dtype.type, np.finfo(dz.dtype).tiny
    smoothing, gamma, ceiling = numbers
    totals[1] += np.count_nonzero(z.argmax(axis=1) == y)
    np.subtract(z, z.max(axis=1, keepdims=True), out=dz)  # (N, O), the largest is 0: exp cannot overflow
    target = dz[sample, y] if smoothing == 0 else smoothed(dz, dz[sample, y], smoothing)  # (N,)
    np.exp(dz, out=dz)  # (N, O)
    total = dz.sum(axis=1)  # (N,) at least 1: the logarithm is finite
    loss = np.log(total) - target  # (N,)
    factor = np.full_like(total, scale)  # (N,)
    if gamma > 0:  # loss = -(1 - p)^gamma log p; its slope over that of -log p follows
        miss = -np.expm1(-loss)  # (N,) 1 - p
        weaker = miss ** real(gamma)  # (N,)
        factor *= weaker + np.where(miss > 0, real(gamma) * (1 - miss) * loss * weaker / np.maximum(miss, tiny), 0)
        loss *= weaker
    if ceiling > 0:
        np.minimum(loss, real(ceiling), out=loss)
    if weight is not None:
        factor *= weight
        loss *= weight
    totals[0] += loss.sum(dtype=np.float64)
    dz *= (factor / total)[:, None]  # (N, O), softmax(z) * factor
    dz[sample, y] -= factor * real(1 - smoothing)
    if smoothing > 0:
        dz -= (factor * real(smoothing / z.shape[1]))[:, None]


def smoothed(z: np.ndarray, right: np.ndarray, smoothing: float) -> np.ndarray:
    """sum(target * z) of each row, the target smoothed. z (N, O), right (N,) z[y] -> (N,)."""
    return np.asarray(z.dtype.type(1 - smoothing) * right + z.dtype.type(smoothing) * z.mean(axis=1))


def elementwise_loss(
    kind: int, z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray,
    weight: np.ndarray | None, numbers: np.ndarray,
) -> None:  # fmt: skip
    """dz = dloss/dz * scale; totals += [sum of losses, right answers]. z, y, dz (N, O), weight (N,), numbers (O,)."""
    totals[1] += np.count_nonzero(((z > 0) == (y > 0.5)).all(axis=1))
    loss, slope = RULES[kind - 1](z, y, numbers)  # (N, O)
    if weight is not None:
        loss, slope = loss * weight[:, None], slope * weight[:, None]
    totals[0] += loss.sum(dtype=np.float64)
    np.multiply(slope, dz.dtype.type(scale), out=dz)  # (N, O)


def backprop_relu(dz: np.ndarray, W: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    np.dot(dz, W.T, out=out)  # (N, O)(O, H) -> (N, H)
    out *= a > 0  # (N, H)


def backprop(kind: int, dz: np.ndarray, W: np.ndarray, z: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""
    np.dot(dz, W.T, out=out)  # (N, O)(O, H) -> (N, H)
    if kind != IDENTITY:
        out *= KINDS[kind].slope(z, a)  # (N, H)


def weight_gradient(a: np.ndarray, dz: np.ndarray, dW: np.ndarray, db: np.ndarray, add: bool) -> None:
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    if add:
        dW += a.T @ dz  # (H, N)(N, O) -> (H, O)
        db += dz.sum(axis=0)
        return
    if isinstance(a, np.ndarray):
        np.dot(a.T, dz, out=dW)
    else:
        dW[:] = a.T @ dz
    np.sum(dz, axis=0, out=db)


def update(rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: np.ndarray, h: Step) -> None:
    """The rule over all parameters, a chunk at a time. w (P,), g (P,), s (S, P)."""
    for start in range(0, len(w), CHUNK):
        rule(w, g, s, slice(start, start + CHUNK), h)


def add_squares(w: np.ndarray, factor: float, out: np.ndarray) -> None:
    """out += factor * (sum of w^2). w (P,) -> out (1,) float64."""
    out += factor * sum_of_squares(w)


def clip(g: np.ndarray, longest: float) -> None:
    """g *= min(1, longest / |g|). g (P,)."""
    length = math.sqrt(sum_of_squares(g))
    if length > longest:
        g *= g.dtype.type(longest / length)


def sum_of_squares(w: np.ndarray) -> float:
    """sum(w^2) in float64, whose range the squares of float32 cannot leave. w (P,)."""
    return float(np.einsum("i,i->", w, w, dtype=np.float64))


@cache
def threadpools() -> Any:
    """The BLAS libraries in this process, found once; none on a Mac, where NumPy uses Accelerate."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def narrow_kernels() -> str | None:
    """What to do where OpenBLAS computes in narrower vectors than the CPU has; None where it does not."""
    wide = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # OpenBLAS's kernels of 512 bits
    kernels = {pool["architecture"] for pool in threadpools().info() if pool["internal_api"] == "openblas"}
    if "X86_V4" not in np.show_config(mode="dicts")["SIMD Extensions"]["found"] or not kernels - wide:
        return None
    return (
        f"NumPy's OpenBLAS runs its {', '.join(sorted(kernels - wide))} kernels of 256 bits, and this CPU has AVX-512: "
        "set OPENBLAS_CORETYPE=SkylakeX before Python starts, and compare with `fastmlp bench`"
    )


WANTED: list[int] = []  # threads at most, of those who run now
CHANGING = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit it locked: whoever would release it stays behind
    os.register_at_fork(before=CHANGING.acquire, after_in_parent=CHANGING.release, after_in_child=CHANGING.release)


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """A context in which BLAS takes at most `threads` threads, the fewest that any context of the moment allows.

    The number belongs to the whole process: the last context to end, in whichever thread, puts back what was before.
    """
    global before
    with CHANGING:
        if not WANTED:
            before = threadpools().limit(limits=threads)
        elif threads < min(WANTED):
            threadpools().limit(limits=threads)
        WANTED.append(threads)
    try:
        yield
    finally:
        with CHANGING:
            WANTED.remove(threads)
            if not WANTED:
                before.restore_original_limits()


before: Any = None  # holds the numbers of threads from before the first context


class NumpyBackend(HostBackend):
    """NumPy and its BLAS."""

    name = "numpy"
    ops = Ops(
        rows, affine, activate, dropout, softmax_cross_entropy, elementwise_loss, backprop_relu, backprop,
        weight_gradient, update, add_squares, clip,
    )  # fmt: skip

    def plan(
        self, network: Network, parameters: np.ndarray, threads: int | None, precision: str | None = None
    ) -> OpsPlan:
        """A network that runs operation by operation."""
        return OpsPlan(self, network, parameters)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[Any]:
        """At most `threads` threads in the BLAS products; None leaves BLAS its own choice."""
        return nullcontext() if threads is None else blas_threads(threads)

    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """The BLAS that multiplies, its threads, and NumPy's version."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        pools = threadpools().info()
        kernels = {pool["architecture"] for pool in pools if "architecture" in pool}
        return {
            "blas": ", ".join([f"{blas['name']} {blas['version']}", *(f"{name} kernels" for name in sorted(kernels))]),
            "threads": threads or max((pool["num_threads"] for pool in pools), default=None),
            "versions": {"numpy": np.__version__},
        }
