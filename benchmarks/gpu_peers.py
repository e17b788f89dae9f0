"""fastmlp on a GPU beside naive CuPy, torch and JAX: the same data, start, rule and precision, checked first.

    FASTMLP_MNIST=FOLDER python -m benchmarks.gpu_peers [--rows N] [--rounds R] [--minutes M] [--only ROW]... [--record]

Ends with a message and exit code 1 where there is no GPU that computes. Rounds are cut short to keep to the minutes
given. A candidate that fails or gives a wrong result is listed as such, the others go on, and the exit code is 1.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from fastmlp import backends

from .gpu.table import LIBRARIES, RECIPE, STEPS, rows
from .peers import machine, record
from .peers.jobs import Job, Source, images_name
from .peers.options import Folder, Keep, Most
from .peers.process import Process
from .peers.rounds import Times, measure, spread
from .peers.start import start
from .peers.table import Row, ready
from .time_to_accuracy import BATCH, HIDDEN, RATE, accuracy

HEADS = ("", "wall, ms", "p10", "p90", "events, ms", "p10", "p90", "times fastmlp", "TFLOP/s")
WARM_UP = 3  # runs of each candidate: the first compiles, the second may capture a graph
NO_GPU = "no GPU to measure: fastmlp's cupy backend cannot be used here: {}"


class Measured(NamedTuple):
    """A row of the table, timed."""

    key: str
    title: str
    flop: float  # of one run
    times: Times
    refused: dict[str, str]  # libraries that cannot do it, and why
    failed: dict[str, str]  # candidates that failed or were wrong, and what was said


def run(row: Row, processes: Mapping[str, Process], rounds: int, until: float, console: Console) -> Measured:
    """Check one row in every library, and time it until time.monotonic is `until`, or so many rounds."""
    console.print(f"{row.title} ...")
    opened = ready(row, processes)
    times = measure(opened.candidates, rounds, lambda: None, until, WARM_UP)
    failed = opened.failed | times.failed
    for line in record.absent(opened.refused, failed):
        console.print(f"  {line}")
    return Measured(row.key, row.title, opened.flop, times, opened.refused, failed)


def accuracies(process: Process, console: Console) -> dict[str, float]:
    """The share of MNIST's test images got right after the recipe of `time_to_accuracy`, by precision."""
    job, test = Job(Source("mnist train", None), (HIDDEN,), BATCH, "momentum", RATE, 1), Source("mnist test", None)
    found = {}
    for precision in RECIPE:
        process.call("clear")
        opened = process.call("open", "recipe", job._replace(precision=precision))
        if opened.refused:
            console.print(f"  without {precision}: {opened.refused}")
            continue
        outcome = process.call("run", opened.names[0]).outcome
        found[precision] = accuracy(outcome, job.sizes, test.load())
    return found


def lines(row: Measured) -> list[tuple[str, ...]]:
    """One line of text for each candidate."""
    first, found = record.first_of_ours(row.times.wall), []
    for name, seconds in row.times.wall.items():
        wall = spread(seconds)
        device = spread(row.times.device[name]) if name in row.times.device else None
        times = [f"{1e3 * value:.4g}" for value in wall]
        times += [f"{1e3 * value:.4g}" for value in device] if device else ["", "", ""]
        ratio = f"{wall.median / first:.2f}" if first else ""
        found.append((name, *times, ratio, f"{row.flop / wall.median / 1e12:.3g}"))
    return found + [(line, *[""] * 8) for line in record.absent(row.refused, row.failed)]


def document(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """The table with what one must know to read it."""
    table = [line for row in measured for line in ((f"**{row.title}**", *[""] * 8), *lines(row))]
    best = facts["ceilings"]
    reached = "; ".join(f"{name} {100 * share:.2f} %" for name, share in facts["test accuracy"].items())
    return f"""# {facts["date"]}: fastmlp on a GPU beside its peers

`{facts["command"]}` on {facts["device"]}, up to {facts["rounds"]} rounds after {WARM_UP} of warm-up,
{facts["minutes"]:.1f} minutes in all. Images are {facts["images"]}.

Each library has a process of its own, stopped while others are timed; every candidate runs once a round, in an order
that rotates. Data and start lie on the device; the order of the rows goes there within the clock, and the host has the
loss of every epoch when it stops. A reading of the full batch is {STEPS} epochs. Before it is timed, and after every
round, each result is compared with that of fastmlp's numpy backend in float32: the loss and all parameters after 10
steps, and after the reading. Events are CUDA's, around the same calls; JAX has none.

In the same run: a copy of 4 GiB reached {best["bytes_per_second"] / 1e12:.2f} TB/s, read and written; a float16 product
of 8192^3 {best["flop_per_second"] / 1e12:.0f} TFLOP/s. Test accuracy of MNIST after the recipe of time_to_accuracy, by
precision: {reached or "not measured, FASTMLP_MNIST names no folder"}.

{record.markdown_table(HEADS, table)}{record.skipped(facts)}
"""


def device() -> str:
    """The GPU in words. Raises typer.Exit, with code 1, after saying why, where nothing can be measured."""
    found = backends.load("cupy")
    if isinstance(found, str):
        record.console().print(NO_GPU.format(found))
        raise typer.Exit(1)
    return str(found.describe()["device"])


def choose(most: int | None, only: Collection[str]) -> list[Row]:
    """The rows whose keys `only` names, or all. Raises typer.BadParameter for another name."""
    table = rows(most)
    if unknown := set(only) - {row.key for row in table}:
        keys = ", ".join(row.key for row in table)
        raise typer.BadParameter(f"--only: expected a row ({keys}); got {', '.join(sorted(unknown))}")
    return [row for row in table if not only or row.key in only]


def measure_ceilings() -> dict[str, float]:
    """What the GPU can do, measured in a process of its own."""
    from .gpu.ceilings import Measurer  # imports CuPy

    process = Process("ceilings", Measurer)
    found: dict[str, float] = process.call("measure")._asdict()
    process.close()
    return found


def main(
    most: Most = None,
    rounds: Annotated[int, typer.Option(min=1, help="Readings of each time, where there is time for them.")] = 30,
    minutes: Annotated[float, typer.Option(min=0.1, help="For all of it; no round is begun after.")] = 7.5,
    only: Annotated[list[str] | None, typer.Option(help="A row; may be given again.")] = None,
    keep: Keep = False,
    folder: Folder = record.FOLDER,
) -> None:
    """Time fastmlp on a GPU beside naive CuPy, torch and JAX."""
    started, chosen = time.monotonic(), choose(most, only or ())
    console, gpu = record.console(), device()
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # or JAX takes three quarters of the memory from the others
    about = machine.describe()
    with ExitStack() as stack:
        libraries = start(LIBRARIES, console, stack)
        best = measure_ceilings()
        reached = accuracies(libraries.processes["cupy"], console) if "FASTMLP_MNIST" in os.environ else {}
        facts, measured = record.about(about, libraries.versions(), "benchmarks.gpu_peers"), []
        for done, row in enumerate(chosen):
            left = started + 60 * minutes - time.monotonic()  # each row gets its share of what is left
            until = time.monotonic() + left / (len(chosen) - done)
            measured.append(run(row, libraries.processes, rounds, until, console))
            if keep:  # what there is: if it ends early, that remains
                facts |= {
                    "device": gpu, "rounds": rounds,
                    "minutes": (time.monotonic() - started) / 60, "images": images_name(), "most rows": most,
                    "not run": libraries.missing, "ceilings": best, "test accuracy": reached,
                    "table": [row._asdict() | {"times": row.times._asdict()} for row in measured],
                }  # fmt: skip
                record.keep(folder, "gpu-peers", facts, document(facts, measured), console)
    shown = Table(*HEADS)
    for row in measured:
        shown.add_row(f"[bold]{row.title}[/]")
        for line in lines(row):
            shown.add_row(*line)
    console.print(shown)
    if any(row.failed for row in measured):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
