"""The stopwatch: every candidate once a round, in an order that rotates, each result checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

PAUSE = 0.12  # s before each run: after its last product OpenBLAS has its threads spin for 2**28 cycles


class Candidate(NamedTuple):
    """One library's way of doing a row's work."""

    name: str
    run: Callable[[], Any]  # what is timed; it returns when the result is there
    check: Callable[[Any], None]  # raises WrongResult
    restart: Callable[[], None] = lambda: None  # before each run, outside the clock
    times: int = 1  # runs in one reading of the clock, where one is too short


class Spread(NamedTuple):
    """Seconds of a run."""

    median: float
    p10: float
    p90: float


def one_run(candidate: Candidate) -> float:
    """Seconds of one run, whose result is then checked."""
    candidate.restart()
    time.sleep(PAUSE)
    started = time.perf_counter()
    for _ in range(candidate.times):
        result = candidate.run()
    seconds = (time.perf_counter() - started) / candidate.times
    candidate.check(result)
    return seconds


def measure(candidates: Sequence[Candidate], rounds: int, between: Callable[[], None]) -> dict[str, list[float]]:
    """Seconds of every round for each candidate; one run each before, for its result and to warm it up.

    `between` is called before every round.
    """
    for candidate in candidates:  # all of them are checked before any is timed
        one_run(candidate)
    seconds: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for turn in range(rounds):
        between()
        first = turn % len(candidates)
        for candidate in (*candidates[first:], *candidates[:first]):
            seconds[candidate.name].append(one_run(candidate))
    return seconds


def spread(seconds: Sequence[float]) -> Spread:
    """Median, tenth and ninetieth percentile."""
    return Spread(*(float(np.percentile(seconds, share)) for share in (50, 10, 90)))
