"""Seconds to 98 % of MNIST's test images, for fastmlp, JAX and torch on one recipe, over several seeds.

    FASTMLP_MNIST=FOLDER python -m benchmarks.time_to_accuracy [--seeds S] [--threads T] [--record]

The recipe: all 60,000 training images, 784-160-10, batches of 64, 8 epochs, momentum 0.9, a rate that falls from 0.6
to 0. It falls once an epoch, to the mean that a line over all steps would have in that epoch: a learner of fastmlp
takes one rate for an epoch, so the others get no more. A seed sets the start and the shuffles, the same for all.

The clock runs over the epochs, shuffles included; data and start are in place, and each library has trained one epoch
on random labels before, so that everything is compiled. Test images are judged after it stops, by the same NumPy code.
"""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from rich.table import Table

from fastmlp.idx import read_idx
from fastmlp.network import layer_views

from .peers import contract, machine, record
from .peers.jobs import Data, Job, scaled

# Of each library the first way it trains (see its module), and torch also on one thread.
TRAINERS = {"fastmlp": ("fastmlp", 0), "JAX": ("jax", 0), "torch": ("torch", 0), "torch, 1 thread": ("torch", 1)}
TARGET, EPOCHS, BATCH, RATE, BETA, HIDDEN = 0.98, 8, 64, 0.6, 0.9, 160
HEADS = ("", "seconds, mean", "spread", "test accuracy, mean", "spread", "worst", "best", "seeds at 98 %")


class Outcome(NamedTuple):
    """One training."""

    seconds: float
    accuracy: float  # of the test images


class Images(NamedTuple):
    """MNIST, whole."""

    train: Data
    test: Data


def read_mnist(folder: Path, rows: int | None) -> Images:
    """All images, or the first `rows` of each part."""

    def part(name: str) -> Data:
        X, y = (read_idx(next(folder.glob(f"{name}-{kind}*")), axes) for kind, axes in (("images", 3), ("labels", 1)))
        X = X[:rows].reshape(-1, X[0].size)
        return Data(X, scaled(X), y[:rows].astype(np.int32))

    return Images(part("train"), part("t10k"))


def rates(epochs: int) -> list[float]:
    """The rate of each epoch: the mean, in it, of a line from RATE to 0 over all."""
    return [RATE * (1 - (epoch + 0.5) / epochs) for epoch in range(epochs)]


def accuracy(parameters: np.ndarray, sizes: tuple[int, ...], test: Data) -> float:
    """The share of test images whose largest logit is their class."""
    (W1, W2), (b1, b2) = layer_views(parameters, sizes)
    return float(((np.maximum(test.x @ W1 + b1, 0) @ W2 + b2).argmax(axis=1) == test.y).mean())


def trainer(name: str, job: Job) -> contract.Trainer:
    """The one of that name, at its start."""
    library, place = TRAINERS[name]
    found = contract.load(library).trainers(job)[place]
    found.restart()
    return found


def train(name: str, job: Job, test: Data) -> Outcome:
    """The recipe, timed."""
    learner, rng = trainer(name, job), np.random.default_rng(job.seed)
    started = time.perf_counter()
    for rate in rates(EPOCHS):
        learner.rate = rate
        learner.epoch(rng.permutation(len(job.y)))
    seconds = time.perf_counter() - started
    return Outcome(seconds, accuracy(learner.parameters(), job.sizes, test))


def warm_up(name: str, job: Job) -> None:
    """One epoch on random labels."""
    wrong = np.random.default_rng(0).permutation(job.y)
    trainer(name, job._replace(y=wrong)).epoch(job.order())


def summary(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """A line of the table: mean and standard deviation of seconds and of accuracy."""
    seconds, found = np.array(outcomes).T
    numbers = (found.mean(), found.std(), found.min(), found.max())
    return (f"{seconds.mean():.3f}", f"{seconds.std():.3f}", *(f"{100 * number:.2f} %" for number in numbers),
            f"{(found >= TARGET).sum()} of {len(found)}")  # fmt: skip


def compete(names: Sequence[str], job: Job, test: Data, seeds: int, say: Callable) -> dict[str, list[Outcome]]:
    """Every trainer once a seed, in an order that rotates."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for name in names:
        warm_up(name, job)
    for seed in range(seeds):
        first = seed % len(names)
        for name in (*names[first:], *names[:first]):
            outcomes[name].append(train(name, job._replace(seed=seed), test))
            say(f"seed {seed}, {name}: {outcomes[name][-1].seconds:.2f} s, {outcomes[name][-1].accuracy:.4f}")
    return outcomes


def document(facts: Mapping[str, Any], lines: Sequence[Sequence[str]]) -> str:
    """The recipe, as this module tells it, and the table."""
    recipe = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    head = f"# {facts['date']}: seconds to 98 % on MNIST\n\n`{facts['command']}`, {facts['threads']} threads."
    skipped = "".join(f"\nNot run: {library}, {reason}.\n" for library, reason in facts["not run"].items())
    return f"{head}\n\n{recipe}\n{record.markdown_table(HEADS, lines)}\n{skipped}"


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each library.")] = 10,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads in every library.")] = min(2, machine.cores()),
    rows: Annotated[int | None, typer.Option(min=60, help="Images at most, to try it out.")] = None,
    keep: Annotated[bool, typer.Option("--record", help="Write a dated record.")] = False,
    folder: Annotated[Path, typer.Option(help="Where records go.")] = record.FOLDER,
) -> None:
    """Train to 98 % of MNIST's test images in fastmlp, JAX and torch."""
    if "FASTMLP_MNIST" not in os.environ:
        raise typer.BadParameter("FASTMLP_MNIST: expected a folder with MNIST's four IDX files, found it unset")
    machine.limit_threads(threads)
    about, console = machine.describe(), record.console()
    images = read_mnist(Path(os.environ["FASTMLP_MNIST"]), rows)
    loaded = {library: contract.load(library) for library, _ in TRAINERS.values()}
    missing = {library: found for library, found in loaded.items() if isinstance(found, str)}
    for library, reason in missing.items():
        console.print(f"{library} is not run: {reason}")
    job = Job(*images.train, (images.train.x.shape[1], HIDDEN, 10), BATCH, "momentum", RATE, threads, BETA)
    names = [name for name, (library, _) in TRAINERS.items() if library not in missing]
    outcomes = compete(names, job, images.test, seeds, console.print)
    lines = [(name, *summary(found)) for name, found in outcomes.items()]
    table = Table(*HEADS)
    for line in lines:
        table.add_row(*line)
    console.print(table)
    if keep:
        facts = {
            "date": datetime.date.today().isoformat(), "machine": about, "versions": record.versions(loaded),
            "command": record.command("benchmarks.time_to_accuracy"), "threads": threads, "not run": missing,
            "rates": rates(EPOCHS), "seconds and accuracy by seed": outcomes,
        }  # fmt: skip
        for path in record.write(folder, "time-to-accuracy", facts, document(facts, lines)):
            console.print(f"written: {path.name}")


if __name__ == "__main__":
    typer.run(main)
