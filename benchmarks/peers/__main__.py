"""Runs the comparison; see `python -m benchmarks.peers --help`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated

import typer
from rich.console import Console

from . import machine, record
from .contract import LIBRARIES, OURS
from .jobs import images_name
from .options import THREADS, Folder, Keep, Most, Rounds, Threads
from .peak import peak
from .process import Process
from .rounds import measure
from .start import start
from .table import Row, ready, rows

NAMES = {"fastmlp", *LIBRARIES} - set(OURS)  # for --only


def main(
    most: Most = None,
    rounds: Rounds = 15,
    threads: Threads = THREADS,
    only: Annotated[
        list[str] | None, typer.Option(help="A row or a library; may be given again. fastmlp always runs.")
    ] = None,
    keep: Keep = False,
    folder: Folder = record.FOLDER,
) -> None:
    """Time fastmlp beside JAX, torch and scikit-learn, on the same data, start, rule and precision."""
    machine.limit_threads(threads)
    about, console = machine.describe(), record.console()
    chosen, libraries = choose(rows(most, threads), only or [])
    readings: list[float] = []
    with ExitStack() as stack:
        started = start({library: LIBRARIES[library] for library in libraries}, console, stack)
        measured = [run(row, started.processes, rounds, threads, readings, console) for row in chosen]
        facts = record.about(about, started.versions(), __package__)
    console.print(record.terminal_table(measured, max(readings)))
    if keep:
        facts |= {
            "threads": threads, "rounds": rounds, "images": images_name(), "most rows": most,
            "not run": started.missing, "peak flop/s": {"best": max(readings), "readings": readings},
            "table": [row._asdict() for row in measured],
        }  # fmt: skip
        record.keep(folder, "peers", facts, record.peers_document(facts, measured), console)
    if any(row.failed for row in measured):
        raise typer.Exit(1)


def run(
    row: Row, processes: Mapping[str, Process], rounds: int, threads: int, readings: list[float], console: Console
) -> record.Measured:
    """Time one row, with a reading of the machine's peak before every round."""
    console.print(f"{row.title} ...")
    opened = ready(row, processes)
    times = measure(opened.candidates, rounds, lambda: readings.append(peak(threads)))
    failed = opened.failed | times.failed
    for line in record.absent(opened.refused, failed):
        console.print(f"  {line}")
    return record.Measured(row.key, row.title, opened.flop, times.wall, opened.refused, failed)


def choose(table: Sequence[Row], only: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows and the libraries that `only` leaves; fastmlp stays whatever it says."""
    keys = [row.key for row in table]
    if unknown := set(only) - set(keys) - NAMES:
        raise typer.BadParameter(
            f"--only: expected a row ({', '.join(keys)}) or a library ({', '.join(sorted(NAMES))}); "
            f"got {', '.join(sorted(unknown))}"
        )
    some = NAMES & set(only) or NAMES
    return [row for row in table if row.key in only] or list(table), [
        library for library in LIBRARIES if library in OURS or library in some
    ]


if __name__ == "__main__":
    typer.run(main)
