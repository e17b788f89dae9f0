"""The stopwatch: every candidate once a round, in an order that rotates, each result checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .check import Check
from .process import Process
from .work import Reading


class Candidate(NamedTuple):
    """One library's way of doing a row's work."""

    name: str
    process: Process  # where it is open
    check: Check
    times: int = 1  # runs in one reading of the clock, where one is too short

    def read(self) -> Reading:
        """Time one run, whose result is then checked."""
        reading = self.process.call("run", self.name, self.times)
        self.check(self.name, reading.outcome)
        return reading


class Spread(NamedTuple):
    """Seconds of a run."""

    median: float
    p10: float
    p90: float


class Times(NamedTuple):
    """Seconds of every round, by candidate."""

    wall: dict[str, list[float]]
    device: dict[str, list[float]]  # between events on a GPU, where the library has them


def measure(
    candidates: Sequence[Candidate], rounds: int, between: Callable[[], object], until: float = np.inf
) -> Times:
    """Every round's seconds of each candidate; one run each before, for its result and to warm it up.

    `between` is called before every round. No round is begun after `until`, by time.monotonic, but for the first.
    """
    for candidate in candidates:  # all of them are checked before any is timed
        candidate.read()
    times = Times({candidate.name: [] for candidate in candidates}, {})
    for turn in range(rounds):
        if turn and time.monotonic() > until:
            break
        between()
        first = turn % max(1, len(candidates))
        for candidate in (*candidates[first:], *candidates[:first]):
            reading = candidate.read()
            times.wall[candidate.name].append(reading.seconds)
            if reading.device is not None:
                times.device.setdefault(candidate.name, []).append(reading.device)
    return times


def spread(seconds: Sequence[float]) -> Spread:
    """Median, tenth and ninetieth percentile."""
    return Spread(*(float(np.percentile(seconds, share)) for share in (50, 10, 90)))
