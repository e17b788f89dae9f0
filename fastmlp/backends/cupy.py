"""The CuPy backend: cuBLAS products, with CUDA kernels of our own for everything between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np
from cupy import cublas

from fastmlp.activations import KINDS
from fastmlp.backends import numpy as host
from fastmlp.backends.base import Array, Backend, Ops
from fastmlp.backends.numpy import PIXEL
from fastmlp.backends.plan import OpsPlan
from fastmlp.kernels import cuda
from fastmlp.network import Network
from fastmlp.optimizers import Step

TILE_ELEMENTS = 2**28  # rows, activations and deltas of one pass at most: 1 GiB of float32

# The products call cuBLAS's sgemm and dgemm: unlike cupy.matmul they can add to what is there, and they compute in
# full precision whatever CUPY_TF32 says.


def rows(X: Array, index: slice | Array, out: Array) -> Array:
    """The rows of X (M, I) that `index` picks, pixels scaled to 0 .. 1 -> x (N, I): out, or a view of X."""
    pixels = X.dtype == np.uint8
    if not isinstance(index, slice):
        cuda.gather(X, index, PIXEL if pixels else 1, out)
    elif pixels:
        cuda.scale(X[index], PIXEL, out)
    else:
        return X[index]  # (N, I), no copy
    return out


def affine(x: Array, W: Array, b: Array, out: Array, relu: bool) -> None:
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    cublas.gemm("N", "N", x, W, out=out)  # (N, I)(I, H) -> (N, H)
    cuda.bias_relu(out, b, relu)


def softmax_cross_entropy(
    z: Array, y: Array, scale: float, dz: Array, totals: Array, weight: Array | None = None,
    numbers: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
) -> None:  # fmt: skip
    """dz = (softmax(z) - target) * scale; totals += [sum of losses, right answers].

    z (N, O), y (N,) -> dz (N, O), totals (2,).
    """
    if weight is not None or any(numbers):
        host.softmax_cross_entropy(z, y, scale, dz, totals, weight, numbers)
        return
    cuda.softmax_cross_entropy(z, y, scale, dz, totals)


def backprop_relu(dz: Array, W: Array, a: Array, out: Array) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    cublas.gemm("N", "T", dz, W, out=out)  # (N, O)(O, H) -> (N, H)
    cuda.mask(out, a)


def backprop(kind: int, dz: Array, W: Array, z: Array, a: Array, out: Array) -> None:
    """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""
    cublas.gemm("N", "T", dz, W, out=out)  # (N, O)(O, H) -> (N, H)
    out *= KINDS[kind].slope(z, a)  # (N, H)


def weight_gradient(a: Array, dz: Array, dW: Array, db: Array, add: bool) -> None:
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    cublas.gemm("T", "N", a, dz, out=dW, beta=1.0 if add else 0.0)  # (H, N)(N, O) -> (H, O)
    cuda.column_sum(dz, db, add)


def update(rule: Callable[..., None], w: Array, g: Array, s: Array, h: Step) -> None:
    """The rule over all parameters in one pass. w (P,), g (P,), s (S, P)."""
    cuda.update(rule.__name__, w, g, s, h)


def probe() -> None:
    """Compute a layer whose result is known: a GPU that is there may still be unable to compute.

    Raises
    ------
    RuntimeError
        There is no GPU, or it computes wrongly.
    """
    if cupy.cuda.runtime.getDeviceCount() == 0:
        raise RuntimeError("no CUDA device")
    x = np.arange(-8, 7, dtype=np.float32).reshape(3, 5)  # small whole numbers: every product and sum is exact
    W = np.arange(-9, 11, dtype=np.float32).reshape(5, 4)
    b = np.arange(4, dtype=np.float32)
    out = cupy.empty((3, 4), np.float32)
    affine(cupy.asarray(x), cupy.asarray(W), cupy.asarray(b), out, True)
    if not np.array_equal(cupy.asnumpy(out), np.maximum(x @ W + b, 0)):
        raise RuntimeError("the GPU gave a wrong product")


class CupyBackend(Backend):
    """CuPy's cuBLAS for the products, our CUDA kernels for everything between them; data stay on the GPU."""

    name = "cupy"
    ops = Ops(
        rows, affine, host.activate, host.dropout, softmax_cross_entropy, host.elementwise_loss, backprop_relu,
        backprop, weight_gradient, update, host.add_squares, host.clip,
    )  # fmt: skip

    def __init__(self) -> None:
        probe()

    def asarray(self, host: np.ndarray) -> Array:
        """A copy of `host` on the GPU; an array that is there already stays where it is."""
        return cupy.asarray(host, order="C")

    def to_host(self, array: Array) -> np.ndarray:
        """A copy of `array` in NumPy. Waits for the GPU."""
        host: np.ndarray = cupy.asnumpy(array)
        return host

    def zeros(self, shape: int | tuple[int, ...], dtype: np.dtype) -> Array:
        """A new array of zeros on the GPU."""
        return cupy.zeros(shape, dtype)

    def tile_rows(self, sizes: Sequence[int]) -> int:
        """Rows whose inputs, activations and deltas fit TILE_ELEMENTS: a GPU wants the whole batch at once."""
        return max(256, TILE_ELEMENTS // (sizes[0] + 2 * sum(sizes[1:])))

    def plan(self, network: Network, parameters: np.ndarray, threads: int | None) -> OpsPlan:
        """A network that runs operation by operation, its arrays on the device."""
        return OpsPlan(self, network, parameters)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[None]:
        """Nothing to limit: no CPU threads compute."""
        return nullcontext()

    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """The GPU, its memory and compute capability, and the versions of what drives it."""
        card = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        blas = cupy.cuda.cublas.getVersion(cupy.cuda.get_cublas_handle())  # 120103 for 12.1.3
        runtime = cupy.cuda.runtime.runtimeGetVersion()  # 12010 for 12.1
        return {
            "device": f"{card['name'].decode()}, {card['totalGlobalMem'] / 2**30:.0f} GiB, "
            f"compute capability {card['major']}.{card['minor']}",
            "blas": f"cuBLAS {blas // 10000}.{blas // 100 % 100}.{blas % 100}",
            "threads": None,
            "versions": {
                "numpy": np.__version__,
                "cupy": cupy.__version__,
                "cuda runtime": f"{runtime // 1000}.{runtime % 1000 // 10}",
            },
        }
