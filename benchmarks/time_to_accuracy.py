"""Seconds to 98 % of MNIST's test images, for fastmlp, JAX and torch on one recipe, over several seeds.

    FASTMLP_MNIST=FOLDER python -m benchmarks.time_to_accuracy [--seeds S] [--threads T] [--record]

The recipe: all 60,000 training images, 784-160-10, batches of 64, 8 epochs, momentum 0.9, a rate that falls in a line
from 0.6 to 0, at every step. A seed sets the start and the shuffles, the same for all.

The clock runs over the epochs, shuffles included; data and start are in place, and each library has trained one epoch
on random labels before, so that everything is compiled. Test images are judged after it stops, by the same NumPy code.
Each library has a process of its own, stopped while others train.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from fastmlp.network import layer_views

from .peers import contract, machine, record
from .peers.jobs import Data, Job, Source
from .peers.options import THREADS, Folder, Keep, Threads
from .peers.process import Process
from .peers.start import start
from .peers.work import falling

LIBRARIES = ("numba", "jax", "torch")
TARGET, BATCH, RATE, HIDDEN = 0.98, 64, 0.6, 160
HEADS = ("", "seconds, mean", "spread", "test accuracy, mean", "spread", "worst", "best", "seeds at 98 %")
LEFT_OUT = "DataLoader"  # far slower than slices of tensors; the peers' table has it


class Outcome(NamedTuple):
    """One training."""

    seconds: float
    accuracy: float  # of the test images


def accuracy(parameters: np.ndarray, sizes: tuple[int, ...], test: Data) -> float:
    """The share of test images whose largest logit is their class."""
    (W1, W2), (b1, b2) = layer_views(parameters, sizes)
    return float(((np.maximum(test.x @ W1 + b1, 0) @ W2 + b2).argmax(axis=1) == test.y).mean())


def warm_up(process: Process, job: Job) -> None:
    """One epoch on random labels."""
    for name in trainers(process, "epoch", job._replace(source=job.source._replace(wrong=True))):
        process.call("run", name)


def trainers(process: Process, work: str, job: Job) -> list[str]:
    """Open a job in a process, and it alone."""
    process.call("clear")
    return [name for name in process.call("open", work, job).names if LEFT_OUT not in name]


def compete(
    processes: Sequence[Process], job: Job, test: Data, seeds: int, say: Callable[[str], object]
) -> dict[str, list[Outcome]]:
    """Every trainer once a seed, in an order that rotates."""
    outcomes: dict[str, list[Outcome]] = {}
    for process in processes:
        warm_up(process, job)
    for seed in range(seeds):
        seeded = job._replace(seed=seed)
        turns = [(process, name) for process in processes for name in trainers(process, "recipe", seeded)]
        outcomes = outcomes or {name: [] for _, name in turns}
        first = seed % len(turns)
        for process, name in (*turns[first:], *turns[:first]):
            reading = process.call("run", name)
            found = Outcome(reading.seconds, accuracy(reading.outcome, job.sizes, test))
            outcomes[name].append(found)
            say(f"seed {seed}, {name}: {found.seconds:.2f} s, {found.accuracy:.4f}")
    return outcomes


def summary(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """A line of the table: mean and standard deviation of seconds and of accuracy."""
    seconds, found = np.array(outcomes).T
    numbers = (found.mean(), found.std(), found.min(), found.max())
    return (f"{seconds.mean():.3f}", f"{seconds.std():.3f}", *(f"{100 * number:.2f} %" for number in numbers),
            f"{(found >= TARGET).sum()} of {len(found)}")  # fmt: skip


def document(facts: Mapping[str, Any], lines: Sequence[Sequence[str]]) -> str:
    """The recipe, as this module tells it, and the table."""
    recipe = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    head = f"# {facts['date']}: seconds to 98 % on MNIST\n\n`{facts['command']}`, {facts['threads']} threads."
    return f"{head}\n\n{recipe}\n{record.markdown_table(HEADS, lines)}{record.skipped(facts)}\n"


def main(
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each library.")] = 10,
    threads: Threads = THREADS,
    rows: Annotated[int | None, typer.Option(min=60, help="Images at most, to try it out.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A library; may be given again. fastmlp always runs.")] = None,
    keep: Keep = False,
    folder: Folder = record.FOLDER,
) -> None:
    """Train to 98 % of MNIST's test images in fastmlp, JAX and torch."""
    if "FASTMLP_MNIST" not in os.environ:
        raise typer.BadParameter("FASTMLP_MNIST: expected a folder with MNIST's four IDX files, found it unset")
    machine.limit_threads(threads)
    about, console = machine.describe(), record.console()
    chosen = [library for library in LIBRARIES if library == "numba" or not only or library in only]
    job = Job(Source("mnist train", rows), (HIDDEN,), BATCH, "momentum", RATE, threads)
    test = Source("mnist test", rows).load()
    with ExitStack() as stack:
        started = start({library: contract.LIBRARIES[library] for library in chosen}, console, stack)
        outcomes = compete(list(started.processes.values()), job, test, seeds, console.print)
        facts = record.about(about, started.versions(), "benchmarks.time_to_accuracy")
    lines = [(name, *summary(found)) for name, found in outcomes.items()]
    console.print(record.plain_table(HEADS, lines))
    if keep:
        facts |= {
            "threads": threads, "not run": started.missing,
            "mean rate of each epoch": falling(job).mean(axis=1).tolist(), "seconds and accuracy by seed": outcomes,
        }  # fmt: skip
        record.keep(folder, "time-to-accuracy", facts, document(facts, lines), console)


if __name__ == "__main__":
    typer.run(main)
