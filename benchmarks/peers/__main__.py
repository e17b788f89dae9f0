"""Runs the comparison; see `python -m benchmarks.peers --help`."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from . import contract, machine, record
from .jobs import images_name
from .rounds import measure
from .table import Row, rows


def main(
    most: Annotated[int | None, typer.Option("--rows", min=60, help="Rows of data at most.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Readings of each time.")] = 15,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads in every library.")] = min(2, machine.cores()),
    only: Annotated[
        list[str] | None, typer.Option(help="A row or a library; may be given again. fastmlp always runs.")
    ] = None,
    keep: Annotated[bool, typer.Option("--record", help="Write a dated record.")] = False,
    folder: Annotated[Path, typer.Option(help="Where records go.")] = record.FOLDER,
) -> None:
    """Time fastmlp beside JAX, torch and scikit-learn, on the same data, start, rule and precision."""
    machine.limit_threads(threads)
    about, console = machine.describe(), record.console()
    chosen, libraries = choose(rows(most, threads), only or [])
    loaded = {library: contract.load(library) for library in libraries}
    missing = {library: found for library, found in loaded.items() if isinstance(found, str)}
    for library, reason in missing.items():
        console.print(f"{library} is not run: {reason}")
    present = [library for library in libraries if library not in missing]

    readings: list[float] = []
    measured = [run(row, present, rounds, threads, readings, console) for row in chosen]
    console.print(record.terminal_table(measured, max(readings)))
    if keep:
        facts = {
            "date": datetime.date.today().isoformat(), "machine": about, "versions": record.versions(loaded),
            "command": record.command(__package__), "threads": threads, "rounds": rounds, "images": images_name(),
            "most rows": most, "not run": missing, "peak flop/s": {"best": max(readings), "readings": readings},
            "table": [row._asdict() for row in measured],
        }  # fmt: skip
        for path in record.write(folder, "peers", facts, record.peers_document(facts, measured)):
            console.print(f"written: {path.name}")


def run(
    row: Row, libraries: Sequence[str], rounds: int, threads: int, readings: list[float], console: Console
) -> record.Measured:
    """Time one row, with a reading of the machine's peak before every round."""
    from .peak import peak

    console.print(f"{row.title} ...")
    flop, candidates = row.make(libraries)
    seconds = measure(candidates, rounds, lambda: readings.append(peak(threads)))
    return record.Measured(row.key, row.title, flop, seconds)


def choose(table: Sequence[Row], only: Sequence[str]) -> tuple[list[Row], list[str]]:
    """The rows and the libraries that `only` leaves; fastmlp stays whatever it says."""
    keys = [row.key for row in table]
    if unknown := set(only) - set(keys) - set(contract.LIBRARIES):
        raise typer.BadParameter(
            f"--only: expected a row ({', '.join(keys)}) or a library ({', '.join(contract.LIBRARIES)}); "
            f"got {', '.join(sorted(unknown))}"
        )
    libraries = [name for name in contract.LIBRARIES if name in only] or list(contract.LIBRARIES)
    chosen = [row for row in table if row.key in only] or list(table)
    return chosen, ["fastmlp", *(name for name in libraries if name != "fastmlp")]


if __name__ == "__main__":
    typer.run(main)
