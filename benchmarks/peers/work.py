"""What a library's process does: it makes the candidates of a row, and runs one of them when told to."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .contract import NotThere, Predictor, Trainer, load
from .jobs import Job

EPOCHS = 5  # of a whole training by one call
RECIPE = 8  # epochs of a training by the recipe


class Way(NamedTuple):
    """One way of doing a row's work."""

    run: Callable[[], Any]  # what is timed; it returns when the result is there
    outcome: Callable[[Any], Any] = lambda result: result  # what is checked, made after the clock has stopped
    restart: Callable[[], None] = lambda: None  # before each run, outside the clock
    several: Callable[[int], Any] | None = None  # so many runs in a row, where that need not wait for each


class Reading(NamedTuple):
    """One timed run."""

    seconds: float
    device: float | None  # seconds between two events on a GPU, where the library has them
    outcome: Any


class Opened(NamedTuple):
    """The candidates of a library, by name."""

    names: list[str]
    refused: str | None = None  # why there is none


class Library:
    """One library, and the candidates it has open."""

    def __init__(self, name: str, module: str):
        self.name, self.module = name, load(module)
        self.ways: dict[str, Way] = {}

    def missing(self) -> str | None:
        """Why the library cannot be used here, if so."""
        return self.module if isinstance(self.module, str) else None

    def versions(self) -> dict[str, str]:
        """Of the library and what it stands on."""
        return {} if isinstance(self.module, str) else self.module.VERSIONS

    def clear(self) -> None:
        """Let go of all candidates."""
        self.ways.clear()

    def open(self, work: str, job: Job, label: str = "") -> Opened:
        """Make the candidates for a piece of work, a key of WORK; `label` is put behind their names."""
        try:
            ways = {f"{name} {label}".strip(): way for name, way in WORK[work](self, job).items()}
        except NotThere as reason:
            return Opened([], str(reason))
        self.ways.update(ways)
        return Opened(list(ways))

    def run(self, name: str, times: int = 1) -> Reading:
        """Time a candidate, over so many runs; seconds are of one."""
        way, event = self.ways[name], getattr(self.module, "event", None)  # event() marks a moment on a GPU
        way.restart()
        first = event and event()
        started = time.perf_counter()
        if way.several:
            result = way.several(times)
        else:
            for _ in range(times):
                result = way.run()
        last = event and event()
        seconds = (time.perf_counter() - started) / times
        device = self.module.seconds_between(first, last) / times if event else None
        return Reading(seconds, device, way.outcome(result))


def epochs(library: Library, job: Job) -> dict[str, Way]:
    """One epoch from the start for each trainer; the outcome is the loss and the parameters after it."""
    order, rates = job.order(), job.rates()

    def way(trainer: Trainer) -> Way:
        several = partial(trainer.several, order, rates) if hasattr(trainer, "several") else None
        epoch = partial(trainer.epoch, order, rates)
        return Way(epoch, lambda loss: (loss, trainer.parameters()), trainer.restart, several)

    return {trainer.name: way(trainer) for trainer in library.module.trainers(job, library.name)}


def proba(library: Library, job: Job) -> dict[str, Way]:
    """The probabilities of all rows."""
    return predictions(library, job, lambda predictor: Way(predictor.proba))


def label(library: Library, job: Job) -> dict[str, Way]:
    """The label of the first row."""
    first = job._replace(source=job.source._replace(rows=1))
    return predictions(library, first, lambda predictor: Way(predictor.labels))


def predictions(library: Library, job: Job, way: Callable[[Predictor], Way]) -> dict[str, Way]:
    """A candidate for each predictor."""
    return {predictor.name: way(predictor) for predictor in library.module.predictors(job, library.name)}


def whole(library: Library, job: Job) -> dict[str, Way]:
    """A training of some epochs by one call, from raw rows; the outcome is the accuracy on them."""
    name, fit, score = library.module.whole(job, library.name, EPOCHS)
    return {name: Way(fit, score)}


def recipe(library: Library, job: Job) -> dict[str, Way]:
    """A whole training by `falling` rates, shuffled by the job's seed; the outcome is the parameters."""

    def way(trainer: Trainer) -> Way:
        def run() -> None:
            rng = np.random.default_rng(job.seed)
            for rates in falling(job):
                trainer.epoch(rng.permutation(len(job.data.y)), rates)

        return Way(run, lambda _: trainer.parameters(), trainer.restart)

    return {trainer.name: way(trainer) for trainer in library.module.trainers(job, library.name)}


def falling(job: Job) -> np.ndarray:
    """The rate of each step of each epoch (epochs, steps): a line from the job's down to 0."""
    steps = RECIPE * len(job.rates())
    return (job.rate * (1 - np.arange(steps) / steps)).reshape(RECIPE, -1)  # (epochs, steps)


WORK = {"epoch": epochs, "proba": proba, "label": label, "whole": whole, "recipe": recipe}
