"""What must come out: fastmlp's numpy backend on the same job. A library that differs is not timed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastmlp.network import softmax

from .jobs import ROWS, Job
from .ours import Ours

Check = Callable[[str, Any], None]  # check(name of the candidate, outcome of its run); raises WrongResult


class WrongResult(Exception):
    """A library computed something else; its time would mean nothing."""


class Allowed(NamedTuple):
    """Rounding, some ten times what is seen."""

    loss: float  # relative
    moved: float  # distance of the parameters, as a share of the way they went


PROBA = 1e-5  # largest difference of a probability, and of two that a label may confuse
FEW = 10  # steps after which a library must still agree closely
# After so many, by the precision of operands: float32 rounds to 2^-24 of a number, tf32 and float16 to 2^-11, bfloat16
# to 2^-8.
SOON = {
    "float32": Allowed(1e-5, 1e-3),
    "tf32": Allowed(1e-3, 2e-2),
    "float16": Allowed(1e-3, 2e-2),
    "bfloat16": Allowed(1e-2, 1e-1),
}


def allowed(job: Job, steps: int) -> Allowed:
    """After a few steps, only rounding differs.

    Later a rounding may turn a ReLU on or off, and Adam makes steps of any gradient as large as the rate: after 164
    of them fastmlp's two backends have been 9 % of the way apart. So Adam's parameters are judged after a few steps.
    """
    soon = SOON[job.precision]
    if steps <= FEW:
        return soon
    return Allowed(1e3 * soon.loss, np.inf) if job.optimizer == "adam" else Allowed(10 * soon.loss, 10 * soon.moved)


def reference(job: Job) -> Ours:
    """The numpy backend at its start, in float32, on one thread: a second would spin on while others are timed."""
    found = Ours(job._replace(precision="float32", threads=1), "numpy")
    found.restart()
    return found


@cache
def exact_epochs(job: Job, times: int) -> tuple[float, np.ndarray]:
    """The loss of the last of so many epochs of the `reference`, and the parameters (P,) after it."""
    exact, order, rates = reference(job), job.order(), job.rates()
    for _ in range(times):
        loss = exact.epoch(order, rates)
    return loss, exact.parameters()


def epoch_check(job: Job, times: int = 1) -> Check:
    """Judges the loss of the last of so many epochs from the start, and the parameters after it."""
    expected, after = exact_epochs(job._replace(precision="float32", threads=1), times)
    limits, way = allowed(job, times * len(job.rates())), np.linalg.norm(after - job.start())

    def check(name: str, outcome: tuple[float, np.ndarray]) -> None:
        loss, parameters = outcome
        if parameters.dtype != np.float32:
            raise WrongResult(f"{name}: expected float32 parameters, found {parameters.dtype}")
        off, moved = abs(loss / expected - 1), np.linalg.norm(parameters - after) / way
        if not (off <= limits.loss and moved <= limits.moved):
            raise WrongResult(
                f"{name}: the loss of the epoch is {loss:.6f}, expected {expected:.6f}, off by {off:.1e} "
                f"(allowed {limits.loss:.0e}); the parameters are off by {moved:.1e} of the way they went "
                f"(allowed {limits.moved:.0e})"
            )

    return check


def proba_check(job: Job, times: int = 1) -> Check:
    """Judges the probabilities (N, O) of all rows."""
    expected = probabilities(job)

    def check(name: str, found: np.ndarray) -> None:
        worst = np.abs(found - expected()).max()
        if found.dtype != np.float32 or not worst <= PROBA:
            raise WrongResult(f"{name}: {found.dtype} probabilities are off by {worst:.1e}")

    return check


def label_check(job: Job, times: int = 1) -> Check:
    """Judges the labels (n,) of the first n rows; ties within rounding may go either way."""
    expected = probabilities(job)

    def check(name: str, found: np.ndarray) -> None:
        p = expected()[: len(found)]
        behind = (p.max(axis=1) - p[np.arange(len(p)), found]).max()
        if not behind <= PROBA:
            raise WrongResult(f"{name}: a label is not the most probable, by {behind:.1e}")

    return check


def probabilities(job: Job) -> Callable[[], np.ndarray]:
    """The probabilities (N, O) of the numpy backend, computed when first asked for."""
    return cache(lambda: softmax(reference(job).plan.logits(job.data.raw)))


def accuracy_check(job: Job, times: int = 1) -> Check:
    """Judges the accuracy of whole trainings that begin and shuffle as each library does."""
    least = 0.9 if len(job.data.y) >= ROWS else 0.0  # fewer rows only try the harness

    def check(name: str, accuracy: float) -> None:
        if not accuracy >= least:
            raise WrongResult(f"{name}: accuracy {accuracy:.4f}, expected {least} or more")

    return check


# Of an outcome, by the work that it comes from: made of the job and the number of runs since the start.
CHECKS = {"epoch": epoch_check, "proba": proba_check, "label": label_check, "whole": accuracy_check}
