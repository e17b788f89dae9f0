"""What must come out: fastmlp's numpy backend on the same job. A library that differs is not timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastmlp.backends import load
from fastmlp.backends.base import Backend
from fastmlp.network import Network, softmax

from .contract import Predictor, Trainer
from .jobs import Job
from .ours import Ours


class WrongResult(Exception):
    """A library computed something else; its time would mean nothing."""


class Allowed(NamedTuple):
    """Rounding, some ten times what float32 shows."""

    loss: float  # relative
    moved: float  # distance of the parameters, as a share of the way they went


PROBA = 1e-5  # largest difference of a probability, and of two that a label may confuse


FEW = 4.5  # steps, the last a smaller batch, after which a library must still agree closely


def allowed(job: Job, few: bool) -> Allowed:
    """After a few steps, or one, only rounding differs.

    Later a rounding may turn a ReLU on or off, and Adam makes steps of any gradient as large as the rate: after 164
    of them fastmlp's two backends have been 9 % of the way apart. So Adam's parameters are judged after a few steps.
    """
    if few or job.full:
        return Allowed(1e-5, 1e-3)
    return Allowed(1e-2, np.inf) if job.optimizer == "adam" else Allowed(1e-4, 1e-2)


def numpy_backend() -> Backend:
    """The reference."""
    backend = load("numpy")
    assert not isinstance(backend, str), backend
    return backend


def epoch_check(job: Job, few: bool = False) -> Callable[[Trainer, float], None]:
    """check(trainer, loss), to be called after one epoch from the start; raises WrongResult."""
    reference = Ours(job, numpy_backend(), job.threads)
    expected = reference.epoch(job.order())
    after, limits = reference.parameters(), allowed(job, few)
    way = np.linalg.norm(after - job.start())

    def check(trainer: Trainer, loss: float) -> None:
        parameters = trainer.parameters()
        if parameters.dtype != np.float32:
            raise WrongResult(f"{trainer.name}: expected float32 parameters, found {parameters.dtype}")
        off, moved = abs(loss / expected - 1), np.linalg.norm(parameters - after) / way
        if not (off <= limits.loss and moved <= limits.moved):
            raise WrongResult(
                f"{trainer.name}: the loss of one epoch is {loss:.6f}, expected {expected:.6f}, off by {off:.1e} "
                f"(allowed {limits.loss:.0e}); the parameters are off by {moved:.1e} of the way they went "
                f"(allowed {limits.moved:.0e})"
            )

    return check


def prediction_checks(job: Job) -> tuple[Callable[[Predictor, Any], None], Callable[[Predictor, Any], None]]:
    """check(predictor, result) for `Predictor.proba` and for `Predictor.labels`; both raise WrongResult."""

    @cache
    def expected() -> np.ndarray:
        return softmax(numpy_backend().plan(Network(job.sizes), job.start(), job.threads).logits(job.raw))  # (N, O)

    def check_proba(predictor: Predictor, found: np.ndarray) -> None:
        worst = np.abs(found - expected()).max()
        if found.dtype != np.float32 or not worst <= PROBA:
            raise WrongResult(f"{predictor.name}: {found.dtype} probabilities are off by {worst:.1e}")

    def check_labels(predictor: Predictor, found: np.ndarray) -> None:
        p = expected()
        behind = (p.max(axis=1) - p[np.arange(len(p)), found]).max()  # ties within rounding may go either way
        if not behind <= PROBA:
            raise WrongResult(f"{predictor.name}: a label is not the most probable, by {behind:.1e}")

    return check_proba, check_labels


def accuracy_check(least: float) -> Callable[[str, float], None]:
    """check(name, accuracy) for whole trainings that begin and shuffle as each library does."""

    def check(name: str, accuracy: float) -> None:
        if not accuracy >= least:
            raise WrongResult(f"{name}: accuracy {accuracy:.4f}, expected {least} or more")

    return check
