"""The Numba backend: kernels of our own, compiled for this CPU, on a team of plain threads."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numba
import numpy as np

from fastmlp.backends.base import HostBackend
from fastmlp.backends.numba_ops import OPS
from fastmlp.backends.numba_plan import NumbaPlan
from fastmlp.backends.numba_team import team_threads
from fastmlp.kernels.cpu.vector import BFLOAT16, has_bfloat16, register_bytes
from fastmlp.network import Network


class NumbaBackend(HostBackend):
    """Compiled kernels: products at the CPU's vector width, with everything around them fused in."""

    name = "numba"
    ops = OPS

    def __init__(self) -> None:
        if numba.njit(lambda x: x + 1)(1) != 2:  # raises where Numba cannot compile
            raise RuntimeError("compiled code gave a wrong sum")
        if has_bfloat16():
            self.precisions = (*self.precisions, BFLOAT16)
        else:
            self.refusals = {BFLOAT16: "this CPU has no AVX-512 BF16"}

    def plan(
        self, network: Network, parameters: np.ndarray, threads: int | None, precision: str | None = None
    ) -> NumbaPlan:
        """A network on this backend."""
        return NumbaPlan(network, parameters, team_threads(threads), precision)

    def limit_threads(self, threads: int | None) -> AbstractContextManager[Any]:
        """Nothing to do: a plan starts as many threads as it was given."""
        return nullcontext()

    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """The kernels that multiply, the threads of a team, and the versions."""
        width = {64: "AVX-512", 32: "AVX2", 16: "128-bit vectors"}[register_bytes()]
        return {
            "blas": f"own kernels, {width}",
            "threads": team_threads(threads),
            "versions": {"numpy": np.__version__, "numba": numba.__version__},
        }
