"""The training loop: epochs run, validated, listened to, ended. `fastmlp.train` and the estimators share it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastmlp.backends.base import Learner, Rows, Totals

DONE, ENDED, INTERRUPTED = "all epochs done", "a callback ended it", "interrupted"


class Work(NamedTuple):
    """What an epoch is to do."""

    rows: Rows  # in the order of visits
    rates: np.ndarray  # (steps,) the learning rate of each step
    l2: np.ndarray | None = None  # (steps,) the penalty's strength over the rows of each batch


class Epoch(NamedTuple):
    """What an epoch saw."""

    number: int  # counted from 1 in this call
    train: Totals
    validation: Any  # what `validate` gave
    seconds: float  # of training alone


Listener = Callable[[Epoch], object]


def run_epochs(
    learner: Learner, batch_size: int, epochs: int, next_work: Callable[[], Work], validate: Callable[[], Any],
    listeners: Sequence[Listener],
) -> str:  # fmt: skip
    """Run up to `epochs` epochs of `learner`, each on what `next_work` gives.

    After each, `validate` is called, then every listener with what was seen; one that returns True ends the training,
    and so does Ctrl-C, which leaves the parameters as the last step made them.

    Returns
    -------
    str
        Why it ended: DONE, ENDED or INTERRUPTED.
    """
    try:
        for number in range(1, epochs + 1):
            work = next_work()
            if number == 1:
                learner.prepare(work.rows, batch_size)
            started = time.perf_counter()
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a divergence is the listeners' matter
                trained = learner.epoch(work.rows, batch_size, work.rates, work.l2)
                seconds = time.perf_counter() - started
                seen = Epoch(number, trained, validate(), seconds)
            answers = [listener(seen) for listener in listeners]
            if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
                return ENDED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE
