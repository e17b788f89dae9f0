"""The stopwatch: every candidate once a round, in an order that rotates, each result checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .check import Check, WrongResult
from .process import Process, ProcessFailed
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
    """Seconds of every round, by candidate; of those that came through every one."""

    wall: dict[str, list[float]]
    device: dict[str, list[float]]  # between events on a GPU, where the library has them
    failed: dict[str, str]  # why the others did not


def measure(
    candidates: Sequence[Candidate], rounds: int, between: Callable[[], object], until: float = np.inf, warm_up: int = 1
) -> Times:
    """Every round's seconds of each candidate; `warm_up` runs each before, for its result and to warm it up.

    `between` is called before every round. No round is begun after `until`, by time.monotonic, but for the first. A
    candidate that fails or whose result is wrong takes no further part, and what it took before does not count.
    """
    times = Times({}, {}, {})
    running = list(candidates)
    for turn in range(-warm_up, rounds):  # all of them are checked before any is timed
        if turn > 0 and time.monotonic() > until:
            break
        if turn >= 0:
            between()
        first = max(turn, 0) % max(1, len(running))
        for candidate in (*running[first:], *running[:first]):
            try:
                reading = candidate.read()
            except (ProcessFailed, WrongResult) as error:
                times.failed[candidate.name] = str(error)
                continue
            if turn >= 0:
                times.wall.setdefault(candidate.name, []).append(reading.seconds)
            if turn >= 0 and reading.device is not None:
                times.device.setdefault(candidate.name, []).append(reading.device)
        running = [candidate for candidate in running if candidate.name not in times.failed]
    kept = [candidate.name for candidate in running]
    return Times(
        {name: times.wall[name] for name in kept},
        {name: times.device[name] for name in kept if name in times.device},
        times.failed,
    )


def spread(seconds: Sequence[float]) -> Spread:
    """Median, tenth and ninetieth percentile."""
    return Spread(*(float(np.percentile(seconds, share)) for share in (50, 10, 90)))
