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

    rows: Rows  # in the order of visits; with an index, their own, where several epochs run in one call
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
    listeners: Sequence[Listener], unheard: Callable[[], int] = lambda: 1,
) -> str:  # fmt: skip
    """Run up to `epochs` epochs of `learner`, each on what `next_work` gives.

    After each, `validate` is called, then every listener with what was seen; one that returns True ends the training,
    and so does Ctrl-C, which leaves the parameters as the last step made them. `unheard` says of how many epochs from
    here on nobody needs to see the parameters or may end the training before the last of them: they run in one call,
    and are told of afterwards, one by one.

    Returns
    -------
    str
        Why it ended: DONE, ENDED or INTERRUPTED.
    """
    number = 0
    try:
        while number < epochs:
            works = [next_work() for _ in range(min(unheard(), epochs - number))]
            if number == 0:
                learner.prepare(works[0].rows, batch_size)
            started = time.perf_counter()
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # a divergence is the listeners' matter
                trained = run_works(learner, batch_size, works)
                seconds = (time.perf_counter() - started) / len(works)
                validation = validate()
            for totals in trained:
                number += 1
                answers = [listener(Epoch(number, totals, validation, seconds)) for listener in listeners]
            if any(isinstance(answer, bool | np.bool_) and answer for answer in answers):
                return ENDED
    except KeyboardInterrupt:
        return INTERRUPTED
    return DONE


def run_works(learner: Learner, batch_size: int, works: list[Work]) -> list[Totals]:
    """Run epochs one after the other, in one call where they are several."""
    rows, rates, l2 = works[0]
    if len(works) == 1:
        return [learner.epoch(rows, batch_size, rates, l2)]
    index = np.concatenate([work.rows.index for work in works])  # (E * N,)
    weight = None if rows.weight is None else np.concatenate([work.rows.weight for work in works])  # (E * N,)
    strengths = None if l2 is None else np.array([work.l2 for work in works])  # (E, steps)
    all_rates = np.array([work.rates for work in works])  # (E, steps)
    return learner.epochs(Rows(rows.X, rows.y, index, weight), batch_size, all_rates, strengths)
