"""The kernels of fastmlp's epochs on a GPU: how often each runs and how long it takes, by torch's profiler.

    FASTMLP_MNIST=FOLDER python -m benchmarks.gpu_profile [--only ROW]... [--rungs]

Rows are those of `benchmarks.gpu_peers`. Times of an epoch are taken without the profiler, which slows the host.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any, NamedTuple

import typer
from rich.table import Table

from .gpu.table import STEPS
from .gpu_peers import choose, device
from .peers import record

READINGS = 15


class Kernel(NamedTuple):
    """All runs of a kernel, or all copies of a kind, in an epoch."""

    name: str
    runs: int
    median: float  # microseconds
    total: float  # microseconds


def by_kernel(runs: Iterable[tuple[str, float]]) -> list[Kernel]:
    """What takes longest first. runs: (name, microseconds) each."""
    times: dict[str, list[float]] = {}
    for name, microseconds in runs:
        times.setdefault(name, []).append(microseconds)
    found = [Kernel(name, len(each), statistics.median(each), sum(each)) for name, each in times.items()]
    return sorted(found, key=lambda kernel: -kernel.total)


def median_seconds(run: Callable[[], Any]) -> float:
    """Of some runs, after as many as it takes to compile and to capture."""
    seconds = []
    for turn in range(-3, READINGS):
        started = time.perf_counter()
        run()
        if turn >= 0:
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def profiled(run: Callable[[], Any]) -> list[Kernel]:
    """The kernels and copies of one run."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
        run()
    events = [event for event in seen.events() if str(event.device_type).endswith("CUDA")]
    return by_kernel((event.name, event.time_range.elapsed_us()) for event in events)


def main(
    only: Annotated[list[str] | None, typer.Option(help="A row; may be given again.")] = None,
    rungs: Annotated[bool, typer.Option(help="Also without what makes it fast, piece by piece.")] = False,
) -> None:
    """List the kernels of an epoch on a GPU."""
    chosen = choose(None, only or ())
    console, gpu = record.console(), device()
    from .gpu.ours import trainers  # imports CuPy

    console.print(gpu)
    for row in chosen:
        jobs = [entry.job for entry in row.entries if "cupy" in entry.libraries]
        for trainer in (trainer for job in jobs for trainer in trainers(job, "cupy")[: None if rungs else 1]):
            order, rates = trainer.job.order(), trainer.job.rates()
            trainer.restart()
            alone = median_seconds(lambda: trainer.epoch(order, rates))  # noqa: B023  # called at once
            told = f"{row.title}, {trainer.name}: {1e3 * alone:.4g} ms an epoch"
            if order is None:
                together = median_seconds(lambda: trainer.several(None, rates, STEPS)) / STEPS  # noqa: B023
                told += f", {1e3 * together:.4g} ms where {STEPS} run in one call"
            table = Table("", "runs", "median, us", "all, us", title=told, title_justify="left")
            for kernel in profiled(lambda: trainer.epoch(order, rates)):  # noqa: B023
                table.add_row(kernel.name[:70], str(kernel.runs), f"{kernel.median:.2f}", f"{kernel.total:.1f}")
            console.print(table)


if __name__ == "__main__":
    typer.run(main)
