"""What a library brings to be timed, and which libraries there are."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, Protocol

import numpy as np

# Each module has VERSIONS and makes `trainers(job, library)` and `predictors(job, library)`; where a library is missing
# it cannot be imported. Each library has a process of its own, and so has each backend of fastmlp.
LIBRARIES = {
    "numba": "benchmarks.peers.ours",
    "numpy": "benchmarks.peers.ours",
    "jax": "benchmarks.peers.with_jax",
    "torch": "benchmarks.peers.with_torch",
    "sklearn": "benchmarks.peers.with_sklearn",
}
OURS = ("numba", "numpy")


class NotThere(Exception):
    """The library, or this version of it on this machine, cannot do a job; says why."""


class Trainer(Protocol):
    """One network in one library. Data and start lie where it computes before `epoch` is called."""

    name: str

    def restart(self) -> None:
        """Back to the start: parameters, and an optimizer that has seen nothing."""

    def epoch(self, order: np.ndarray | None, rates: np.ndarray) -> float:
        """One epoch over rows `order` (N,), None for the full batch; the mean loss, each batch's before its step.

        rates (steps,). The host has the loss when the call returns.
        """

    def parameters(self) -> np.ndarray:
        """All parameters (P,) on the host, as `fastmlp.network.layer_views` lays them out."""


class Streaming(Trainer, Protocol):
    """A trainer that can run epoch after epoch without the host waiting for each."""

    def several(self, order: np.ndarray | None, rates: np.ndarray, times: int) -> float:
        """As `epoch` so many times over; the host has the last loss, and may have had all, when the call returns."""


class Dispatched(ABC):
    """A trainer whose library answers before the work is done: its `dispatch` is an epoch that may be on its way."""

    @abstractmethod
    def dispatch(self, order: np.ndarray | None, rates: np.ndarray) -> Any:
        """One epoch; the loss, which float() waits for."""

    def settle(self, loss: Any) -> float:
        """The loss, once all work is done."""
        return float(loss)

    def epoch(self, order: np.ndarray | None, rates: np.ndarray) -> float:
        """See `Trainer`."""
        return self.several(order, rates, 1)

    def several(self, order: np.ndarray | None, rates: np.ndarray, times: int) -> float:
        """See `Streaming`."""
        for _ in range(times):
            loss = self.dispatch(order, rates)
        return self.settle(loss)


class Predictor(Protocol):
    """A network with the job's start as its weights, asked about the job's rows, from host memory and back."""

    name: str

    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""

    def labels(self) -> np.ndarray:
        """The most probable class of each row (N,)."""


def load(module: str) -> ModuleType | str:
    """The module for a library, or the reason why it cannot be used here."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
