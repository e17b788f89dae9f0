"""scikit-learn's MLPClassifier: an epoch is one partial_fit, with its checks of the data switched off."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import sklearn
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from fastmlp.network import layer_views

from .contract import NotThere
from .jobs import BETA2, EPSILON, Job, scaled

VERSIONS = {"scikit-learn": sklearn.__version__}


class Dealt(np.random.RandomState):
    """A shuffle that deals the order it was given, so that scikit-learn visits the rows as the others do."""

    order: np.ndarray | None = None  # (N,)

    def shuffle(self, x: np.ndarray) -> None:
        """The order (N,), written into x."""
        if self.order is not None:
            x[:] = self.order


def classifier(job: Job, random_state: int | np.random.RandomState, **options: object) -> MLPClassifier:
    """The job's network and rule. Its v is that of v = beta v - rate g, so the rate is smaller by 1 - beta."""
    adam = job.optimizer == "adam"
    return MLPClassifier(
        job.hidden, solver="adam" if adam else "sgd", alpha=0.0, batch_size=min(job.batch, len(job.data.y)),
        learning_rate_init=job.rate if adam else job.rate * (1 - job.beta), momentum=job.beta, nesterovs_momentum=False,
        beta_1=job.beta, beta_2=BETA2, epsilon=EPSILON, shuffle=not job.full, random_state=random_state, **options,
    )  # fmt: skip


class Sklearn:
    """See `contract.Trainer`; of a job with one row or more it also serves as `contract.Predictor`."""

    name = "scikit-learn"

    def __init__(self, job: Job):
        if job.precision != "float32":
            raise NotThere(f"scikit-learn has no precision {job.precision}")
        self.job, self.dealt = job, Dealt(0)
        self.scale = 1.0 if job.optimizer == "adam" else 1 - job.beta
        self.model = classifier(job, self.dealt)
        with sklearn.config_context(assume_finite=True):
            classes = np.arange(job.sizes[-1])
            self.model.partial_fit(job.data.x, job.data.y, classes=classes)  # allocates what it needs
        self.restart()

    def restart(self) -> None:
        """Back to the start."""
        for parts, found in zip(layer_views(self.job.start(), self.job.sizes), self._parts(), strict=True):
            for part, own in zip(parts, found, strict=True):
                own[:] = part
        optimizer = self.model._optimizer
        for state in ("velocities", "ms", "vs"):
            if hasattr(optimizer, state):
                setattr(optimizer, state, [np.zeros_like(part) for parts in self._parts() for part in parts])
        optimizer.t = 0

    def _parts(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return self.model.coefs_, self.model.intercepts_

    def epoch(self, order: np.ndarray | None, rates: np.ndarray) -> float:
        """One epoch, at one rate."""
        if np.ptp(rates) > 0:
            raise NotThere("scikit-learn takes one rate for an epoch")
        self.dealt.order = order
        optimizer = self.model._optimizer
        optimizer.learning_rate_init = optimizer.learning_rate = rates[0] * self.scale
        with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
            self.model.partial_fit(self.job.data.x, self.job.data.y)
        return float(self.model.loss_)

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        return np.concatenate([part.ravel() for layer in zip(*self._parts(), strict=True) for part in layer])

    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""
        return self.model.predict_proba(self.job.data.x)

    def labels(self) -> np.ndarray:
        """The most probable classes (N,)."""
        return self.model.predict(self.job.data.x)


def trainers(job: Job, library: str) -> list[Sklearn]:
    """The one way of training."""
    return [Sklearn(job)]


def predictors(job: Job, library: str) -> list[Sklearn]:
    """The one way of asking."""
    return [Sklearn(job)]


def whole(
    job: Job, library: str, epochs: int
) -> tuple[str, Callable[[], MLPClassifier], Callable[[MLPClassifier], float]]:
    """A training of exactly so many epochs by one call, from the library's own start and shuffles; see `ours`."""
    data = job.data

    def fit() -> MLPClassifier:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # it says that max_iter was reached: that is the point
            model = classifier(job, 0, max_iter=epochs, tol=0.0, n_iter_no_change=epochs + 1)
            return model.fit(scaled(data.raw), data.y)

    return "scikit-learn", fit, lambda model: model.score(data.x, data.y)
