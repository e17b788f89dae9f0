"""fastmlp's numba backend beside its numpy backend, over thirty shapes of network and batch.

    python -m benchmarks.shapes [--threads T] [--rounds R] [--only PLACE]

One epoch of training and the probabilities of the same rows, for each shape. Each time is a median of interleaved
rounds, each backend in a process of its own; after every round the loss, the parameters and the probabilities are
compared with the numpy backend's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, NamedTuple

import typer
from rich.table import Table

from .peers import machine, record
from .peers.check import CHECKS, WrongResult
from .peers.contract import LIBRARIES, OURS
from .peers.jobs import Job, Source
from .peers.options import THREADS, Rounds, Threads
from .peers.process import Process
from .peers.rounds import Candidate, measure, spread
from .peers.start import start

FULL = 10**9  # rows of a batch: all there are
SECONDS = 0.04  # of an epoch, about
FLOP, BYTES = 1e11, 1e10  # a second, guessed, to choose the rows of an epoch
STEP = 3e-5  # s a step takes besides
MOST_ROWS = 16_384


class Shape(NamedTuple):
    """A network and a batch."""

    sizes: tuple[int, ...]
    batch: int

    def rows(self) -> int:
        """Rows of an epoch that takes about SECONDS."""
        weights = sum(fan_in * fan_out for fan_in, fan_out in zip(self.sizes, self.sizes[1:], strict=False))
        row = 6 * weights / FLOP
        if self.batch == FULL:
            return int(min(MOST_ROWS, max(2048, SECONDS / row)))
        step = row * self.batch + 20 * weights / BYTES + STEP
        return min(MOST_ROWS // self.batch, max(2, int(SECONDS / step))) * self.batch

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, {'full' if self.batch == FULL else self.batch}"


SHAPES = [
    Shape(sizes, batch)
    for sizes, batch in (
        ((1, 2), 1), ((1, 1, 2), 32), ((4, 8, 3), 16), ((50, 1, 2), FULL), ((16, 100, 26), 200), ((30, 5, 2), 1),
        ((64, 10), FULL), ((784, 10), 128), ((784, 160, 10), 1), ((784, 160, 10), 8), ((784, 160, 10), 32),
        ((784, 160, 10), 128), ((784, 160, 10), 1000), ((784, 160, 10), FULL), ((10, 32, 32, 2), 16),
        ((20, 64, 64, 64, 64, 5), 64), ((256, 256, 256, 256, 256, 10), 256), ((512, 512, 512, 10), 512),
        ((784, 512, 512, 10), 256), ((1024, 1024, 10), 64), ((1024, 1024, 1024, 10), FULL), ((2048, 2048, 10), 256),
        ((4096, 4096, 10), 32), ((4096, 1024, 2), 8), ((4096, 4096, 2), 1), ((128, 4096, 10), FULL),
        ((4096, 16, 2), FULL), ((1000, 1000, 1000), 128), ((4096, 2), FULL), ((2048, 2048, 2048, 2048, 2048, 10), 128),
    )
]  # fmt: skip


class Line(NamedTuple):
    """What was measured of a shape: seconds of each round, by backend."""

    shape: Shape
    epoch: dict[str, list[float]]
    proba: dict[str, list[float]]


def run(shape: Shape, threads: int, rounds: int, processes: Mapping[str, Process]) -> Line:
    """Time one shape."""
    source = Source("dense", shape.rows(), shape.sizes[0], shape.sizes[-1])
    job = Job(source, shape.sizes[1:-1], shape.batch, "momentum", 0.02, threads)

    def timed(work: str) -> dict[str, list[float]]:
        check, candidates = CHECKS[work](job), []
        for process in processes.values():
            process.call("clear")
            candidates += [Candidate(name, process, check) for name in process.call("open", work, job).names]
        times = measure(candidates, rounds, lambda: None)
        if times.failed:
            raise WrongResult(f"{shape}: {times.failed}")
        return times.wall

    return Line(shape, timed("epoch"), timed("proba"))


def table(lines: Sequence[Line], threads: int) -> Table:
    """Milliseconds of both backends and how many times as long numpy takes."""
    result = Table("", title=f"{threads} thread{'s' * (threads > 1)}; ms, and how many times as long numpy takes")
    for head in ("rows", "epoch, numba", "numpy", "times", "probabilities, numba", "numpy", "times"):
        result.add_column(head, justify="right")
    for line in lines:
        cells = []
        for seconds in (line.epoch, line.proba):
            ours, theirs = (spread(times).median for times in seconds.values())
            ratio = f"{theirs / ours:.2f}"
            cells += [f"{1e3 * ours:.3g}", f"{1e3 * theirs:.3g}", ratio if theirs >= ours else f"[bold red]{ratio}[/]"]
        result.add_row(str(line.shape), f"{line.shape.rows():,}", *cells)
    return result


def main(
    threads: Threads = THREADS,
    rounds: Rounds = 7,
    only: Annotated[list[int] | None, typer.Option(help="A shape's place, from 0; may be given again.")] = None,
) -> None:
    """Time the numba backend beside the numpy backend over many shapes."""
    machine.limit_threads(threads)
    console = record.console()
    chosen = [SHAPES[place] for place in only] if only else SHAPES
    with ExitStack() as stack:
        processes = start({library: LIBRARIES[library] for library in OURS}, console, stack).processes
        console.print(table([run(shape, threads, rounds, processes) for shape in chosen], threads))


if __name__ == "__main__":
    typer.run(main)
