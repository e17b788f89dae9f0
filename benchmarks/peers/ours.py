"""fastmlp: a library for each of its backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import numpy as np

import fastmlp
from fastmlp.backends.base import Rows

from .contract import NotThere
from .jobs import Job

VERSIONS = {name: version(name) for name in ("fastmlp", "numpy", "numba", "llvmlite")}


def model(job: Job, backend: str) -> fastmlp.Model:
    """A model with the job's network, rule and start, trained on next to nothing: its weights are set afterwards.

    Raises NotThere if the backend cannot be used here or has not the job's precision.
    """
    inputs, classes = job.sizes[0], job.sizes[-1]
    try:
        made = fastmlp.train(
            np.zeros((classes, inputs), job.data.raw.dtype), np.arange(classes), hidden=job.hidden, epochs=1,
            optimizer=job.optimizer, learning_rate=job.rate, beta=job.beta, precision=job.precision,
            backend=backend, threads=job.threads, strict=True, progress=False,
        )  # fmt: skip
    except (fastmlp.BackendUnavailable, fastmlp.OptionError) as error:
        raise NotThere(str(error)) from error
    made.parameters[:] = job.start()
    return made


class Ours:
    """A learner of one backend; see `contract.Trainer`."""

    def __init__(self, job: Job, backend: str):
        self.name = f"fastmlp {backend}"
        self.start = job.start()
        self.model = model(job, backend)
        self.plan, self.learner = self.model.plan, self.model.learner
        compute = self.model.backend
        self.rows = Rows(compute.asarray(job.data.raw), compute.asarray(job.data.y))
        self.batch = min(job.batch, len(job.data.y))

    def restart(self) -> None:
        """Back to the start."""
        self.plan.parameters[:] = self.model.backend.asarray(self.start)
        self.learner.state[:] = 0
        self.learner.steps = 0

    def epoch(self, order: np.ndarray | None, rates: np.ndarray) -> float:
        """One epoch, as `fastmlp.train` runs it."""
        rows = self.rows if order is None else replace(self.rows, index=order)
        return self.learner.epoch(rows, self.batch, rates).loss

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        return np.array(self.model.backend.to_host(self.plan.parameters))


class OursAsked:
    """A model of one backend; see `contract.Predictor`."""

    def __init__(self, job: Job, backend: str):
        self.name, self.rows, self.model = f"fastmlp {backend}", job.data.raw, model(job, backend)

    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""
        return self.model.predict_proba(self.rows)

    def labels(self) -> np.ndarray:
        """The most probable classes (N,)."""
        return self.model.predict(self.rows)


def trainers(job: Job, library: str) -> list[Ours]:
    """The one way of training."""
    return [Ours(job, library)]


def predictors(job: Job, library: str) -> list[OursAsked]:
    """The one way of asking."""
    return [OursAsked(job, library)]


def whole(
    job: Job, library: str, epochs: int
) -> tuple[str, Callable[[], fastmlp.Model], Callable[[fastmlp.Model], float]]:
    """A training by one call: its name, the call, and the accuracy of what it returns."""
    data = job.data

    def fit() -> fastmlp.Model:
        return fastmlp.train(
            data.raw, data.y, hidden=job.hidden, backend=library, epochs=epochs, batch_size=job.batch,
            learning_rate=job.rate, beta=job.beta, threads=job.threads, strict=True, progress=False,
        )  # fmt: skip

    return f"fastmlp {library}", fit, lambda trained: trained.score(data.raw, data.y)
