"""An estimator's network where it computes: its plan, its optimizer's state, and one caller at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from fastmlp.backends.base import Array, Backend, Learner, Rows
from fastmlp.network import Network, layer_views, parameter_count
from fastmlp.optimizers import Settings, find

Matrices = Sequence[np.ndarray]


class Engine:
    """A network on a backend. `coefs` and `intercepts` are views of all parameters, kept on the host."""

    def __init__(
        self, backend: Backend, network: Network, parameters: np.ndarray, threads: int | None,
        precision: str | None = None,
    ):  # fmt: skip
        self.backend, self.network, self.threads, self.precision = backend, network, threads, precision
        self.plan = backend.plan(network, parameters, threads, precision)
        worked_in = self.plan.parameters
        self.on_host = isinstance(worked_in, np.ndarray)
        self.parameters = worked_in if self.on_host else parameters.copy()  # (P,)
        W, b = layer_views(self.parameters, network.sizes)
        self.coefs, self.intercepts = list(W), list(b)
        self.lock = threading.RLock()  # a plan has one set of buffers: two threads take turns
        self.learner: Learner | None = None

    def fits(
        self, backend: Backend, network: Network, dtype: np.dtype, threads: int | None, precision: str | None
    ) -> bool:
        """Whether this engine is one of `network` on `backend`."""
        own = self.backend, self.network, self.parameters.dtype, self.threads, self.precision
        return own == (backend, network, dtype, threads, precision)

    def holds(self, coefs: Matrices, intercepts: Matrices) -> bool:
        """Whether these lists hold the engine's own arrays."""
        own = (*self.coefs, *self.intercepts)
        given = (*coefs, *intercepts)
        return len(own) == len(given) and all(a is b for a, b in zip(own, given, strict=True))

    def take(self, coefs: Matrices, intercepts: Matrices) -> None:
        """Take over weights and biases that someone put in place of the engine's own."""
        if not self.holds(coefs, intercepts):
            for own, given in zip((*self.coefs, *self.intercepts), (*coefs, *intercepts), strict=True):
                own[:] = given

    def new_learner(self, rule: str, settings: Settings, state: np.ndarray | None, steps: int) -> Learner:
        """The optimizer, afresh or where `state` (S, P) and `steps` say it was."""
        self.learner = self.plan.learner(find(rule), settings)
        if state is not None:
            self.learner.state[:] = self.backend.asarray(state)  # (S, P)
        self.learner.steps = steps
        return self.learner

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """For a caller alone, with the host's parameters where the plan works."""
        with self.lock, self.backend.limit_threads(self.threads):
            self.upload()
            yield

    def upload(self) -> None:
        """Bring the host's parameters into the plan; on a CPU they are there."""
        if not self.on_host:
            self.plan.parameters[:] = self.backend.asarray(self.parameters)

    def download(self) -> None:
        """Bring the plan's parameters to the host; on a CPU they are there."""
        if not self.on_host:
            self.parameters[:] = self.backend.to_host(self.plan.parameters)

    def rows(self, X: Any, y: Array, weight: np.ndarray | None = None) -> Rows:
        """Host rows X (N, I) with targets y where the backend computes."""
        put = self.backend.asarray
        return Rows(put(X), put(y), weight=None if weight is None else put(weight))

    def outputs(self, X: Any, *, softmax: bool) -> np.ndarray:
        """The last layer's z of rows X (N, I), an array or CSR, or its softmax -> (N, O)."""
        with self.in_use():
            return self.plan.probabilities(X) if softmax else self.plan.logits(X)


def packed(coefs: Matrices, intercepts: Matrices) -> tuple[tuple[int, ...], np.ndarray]:
    """Layer sizes, and all weights and biases as one array (P,)."""
    sizes = (coefs[0].shape[0], *(W.shape[1] for W in coefs))
    flat = np.empty(parameter_count(sizes), coefs[0].dtype)  # (P,)
    W, b = layer_views(flat, sizes)
    for own, given in zip((*W, *b), (*coefs, *intercepts), strict=True):
        own[:] = given
    return sizes, flat


def thread_limit(asked: int | None) -> int | None:
    """Threads of a fit or a prediction at most; None is all there are.

    Where none were asked for: one outside the main thread, since a thread pool's owner has the others at work; and no
    more than OMP_NUM_THREADS, which joblib's and Dask's worker processes set to their share of the machine.
    """
    if asked is not None:
        return asked
    if threading.current_thread() is not threading.main_thread():
        return 1
    share = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(share)) if share.isdigit() else None
