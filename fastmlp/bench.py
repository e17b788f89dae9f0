"""The usable backends side by side on this machine: the same work, taken in turns, and the same result."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastmlp.backends.base import Rows
from fastmlp.labels import encode_labels
from fastmlp.model import Model
from fastmlp.training import train

if TYPE_CHECKING:
    from rich.table import Table

HIDDEN, BATCH = (160,), 128
WORK = FULL, BATCHES, PREDICT = "full-batch epoch", f"batch-{BATCH} epoch", "predict"
TOLERANCE = 1e-3  # relative, between the losses of two backends: float32 sums in another order differ by far less


@dataclass
class Timing:
    """What one backend took for one piece of work."""

    backend: str
    work: str  # one of WORK
    flop: int
    loss: float  # of the same rows after the same work on every backend
    seconds: list[float]  # one a round
    ms: float  # median of the rounds
    gflops: float  # 10^9 operations a second, those of the dense matrix products


class Runner(NamedTuple):
    """One backend, warmed up for one piece of work."""

    backend: str
    flop: int
    step: Callable[[], object]  # the work to time
    loss: Callable[[], float]  # to compare when all is done


def measure(X: np.ndarray, y: np.ndarray, names: Sequence[str], rounds: int) -> list[Timing]:
    """Time every piece of work on every backend, `rounds` times each after a warm-up.

    X (N, I) uint8, y (N,). The backends take turns within a round, so that a busy moment of the machine meets them all.
    """
    timings = []
    for work in WORK:
        runners = [prepare(work, name, X, y) for name in names]
        seconds: list[list[float]] = [[] for _ in runners]
        for _ in range(rounds):
            for runner, measured in zip(runners, seconds, strict=True):
                started = time.perf_counter()
                runner.step()
                measured.append(time.perf_counter() - started)
        for runner, measured in zip(runners, seconds, strict=True):
            typical = median(measured)
            gflops = runner.flop / typical / 1e9
            timings.append(Timing(runner.backend, work, runner.flop, runner.loss(), measured, 1e3 * typical, gflops))
    return timings


def prepare(work: str, backend: str, X: np.ndarray, y: np.ndarray) -> Runner:
    """A network trained for one epoch, so that everything is compiled and allocated, and the work to do with it."""
    batch = BATCH if work == BATCHES else len(X)
    size = BATCH if work == BATCHES else "full"
    model = train(X, y, hidden=HIDDEN, backend=backend, epochs=1, batch_size=size, progress=False, strict=True)
    products = [fan_in * fan_out for fan_in, fan_out in itertools.pairwise(model.sizes)]
    forward = 2 * len(X) * sum(products)
    if work == PREDICT:
        model.predict(X)
        return Runner(backend, forward, lambda: model.predict(X), lambda: log_loss(model, X, y))
    losses: list[float] = []
    backward = forward + 2 * len(X) * sum(products[1:])  # no dz W^T for the first layer
    return Runner(backend, forward + backward, epoch_step(model, X, y, batch, losses), lambda: losses[0])


def epoch_step(model: Model, X: np.ndarray, y: np.ndarray, batch: int, losses: list[float]) -> Callable[[], None]:
    """One more epoch of `model`, which appends its loss; batches are drawn in the same order on every backend."""
    backend, rng = model.backend, np.random.default_rng(0)
    rows = Rows(backend.asarray(X), backend.asarray(encode_labels(y, len(X), model.classes)[0]))

    rates = np.full(-(-len(X) // batch), model.report.learning_rate)  # (steps,)

    def step() -> None:
        order = None if batch == len(X) else rng.permutation(len(X))  # (N,)
        losses.append(model.learner.epoch(Rows(rows.X, rows.y, order), batch, rates).loss)

    return step


def log_loss(model: Model, X: np.ndarray, y: np.ndarray) -> float:
    """Mean cross entropy, computed here from the probabilities that the model predicts."""
    codes, _ = encode_labels(y, len(X), model.classes)
    p = model.predict_proba(X)[np.arange(len(X)), codes].astype(np.float64)  # (N,)
    with np.errstate(divide="ignore"):  # a wrong backend may give 0; its infinite loss is reported
        return float(-np.log(p).mean())


def disagreements(timings: Sequence[Timing]) -> list[str]:
    """A line for each loss that is not that of the list's last backend, which is NumPy where all are measured."""
    found = []
    for work in WORK:
        of_work = [timing for timing in timings if timing.work == work]
        right = of_work[-1]
        found += [
            f"{work}: {timing.backend} and {right.backend} disagree, expected the loss {right.loss:.6g}, "
            f"got {timing.loss:.6g}; do not use {timing.backend} here, and report it"
            for timing in of_work
            if not abs(timing.loss - right.loss) <= TOLERANCE * abs(right.loss)  # a NaN is never close
        ]
    return found


def table(timings: Sequence[Timing]) -> Table:
    """A line for each backend and piece of work; the fastest of each work stands out."""
    from rich.table import Table

    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("work", "backend", "ms", "GFLOP/s", "loss"):
        grid.add_column(name, justify="left" if name in ("work", "backend") else "right")
    for timing in timings:
        best = timing.ms == min(other.ms for other in timings if other.work == timing.work)
        cells = (timing.work, timing.backend, f"{timing.ms:.1f}", f"{timing.gflops:.3g}", f"{timing.loss:.5f}")
        grid.add_row(*cells, style="bold green" if best else None)
    return grid
