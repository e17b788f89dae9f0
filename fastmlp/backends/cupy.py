"""The CuPy backend: cuBLAS products, with CUDA kernels of our own for everything between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import cupy
import numpy as np

from fastmlp.backends.base import Array, Backend
from fastmlp.backends.cupy_data import on_device, rows_or_host
from fastmlp.backends.cupy_plan import CupyPlan, rows_of_tile
from fastmlp.kernels.cuda.products import PRECISIONS
from fastmlp.network import Network


class CupyBackend(Backend):
    """One GPU: data and networks stay on it. See docs/gpu.md."""

    name = "cupy"

    def __init__(self, device: int = 0) -> None:
        if cupy.cuda.runtime.getDeviceCount() <= device:
            raise RuntimeError("no CUDA device" if device == 0 else f"no CUDA device {device}")
        self.device = device
        with cupy.cuda.Device(device) as card:
            capability = int(card.compute_capability)  # 90 for 9.0
        self.precisions = tuple(name for name, facts in PRECISIONS.items() if facts.capability <= capability)
        self.refusals = {
            name: f"it needs compute capability {facts.capability / 10}, this card has {capability / 10}"
            for name, facts in PRECISIONS.items() if facts.capability > capability
        }  # fmt: skip
        self.probe()

    def probe(self) -> None:
        """Compute a layer whose result is known: a GPU that is there may still be unable to compute.

        Raises RuntimeError where it computes wrongly, and whatever CuPy raises where it cannot.
        """
        sizes = (5, 4)
        x = np.arange(-8, 7, dtype=np.float32).reshape(3, 5)  # small whole numbers: every product and sum is exact
        W = np.arange(-9, 11, dtype=np.float32).reshape(sizes)
        b = np.arange(4, dtype=np.float32)
        z = self.plan(Network(sizes), np.concatenate([W.ravel(), b]), None).logits(x)
        if not np.array_equal(z, x @ W + b):
            raise RuntimeError("the GPU gave a wrong product")

    def asarray(self, host: Any) -> Array:
        """A copy of `host` on the GPU; an array that is there already stays where it is.

        Rows for which the card has no room stay on the host, with a warning, and so does a CSR matrix of SciPy's: a
        plan brings them over step by step.
        """
        if hasattr(host, "toarray"):
            return host
        with cupy.cuda.Device(self.device):
            return rows_or_host(host) if isinstance(host, np.ndarray) else on_device(host, self.device)

    def to_host(self, array: Array) -> np.ndarray:
        """A copy of `array` in NumPy. Waits for the GPU."""
        host: np.ndarray = array if isinstance(array, np.ndarray) else cupy.asnumpy(array)
        return host

    def zeros(self, shape: int | tuple[int, ...], dtype: np.dtype) -> Array:
        """A new array of zeros on the GPU."""
        with cupy.cuda.Device(self.device):
            return cupy.zeros(shape, dtype)

    def tile_rows(self, sizes: Sequence[int]) -> int:
        """Rows whose inputs, activations and deltas make 1 GiB of float32: a GPU wants the whole batch at once."""
        return rows_of_tile(sizes)

    def plan(
        self, network: Network, parameters: np.ndarray, threads: int | None, precision: str | None = None
    ) -> CupyPlan:
        """A network on this GPU, at the precision called so; None computes in the parameters' type."""
        return CupyPlan(network, parameters, PRECISIONS[precision or parameters.dtype.name], self.device)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[None]:
        """Nothing to limit: no CPU threads compute."""
        return nullcontext()

    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """The GPU, its memory and compute capability, and the versions of what drives it."""
        card = cupy.cuda.runtime.getDeviceProperties(self.device)
        with cupy.cuda.Device(self.device):
            blas = cupy.cuda.cublas.getVersion(cupy.cuda.get_cublas_handle())  # 120103 for 12.1.3
        runtime = cupy.cuda.runtime.runtimeGetVersion()  # 12010 for 12.1
        return {
            "device": f"{card['name'].decode()}, {card['totalGlobalMem'] / 2**30:.0f} GiB, "
            f"compute capability {card['major']}.{card['minor']}" + (f", device {self.device}" if self.device else ""),
            "blas": f"cuBLAS {blas // 10000}.{blas // 100 % 100}.{blas % 100}",
            "threads": None,
            "versions": {
                "numpy": np.__version__,
                "cupy": cupy.__version__,
                "cuda runtime": f"{runtime // 1000}.{runtime % 1000 // 10}",
            },
        }
