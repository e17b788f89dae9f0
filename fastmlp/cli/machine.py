"""``fastmlp info`` and ``bench``: what computes on this machine, and how fast."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastmlp import backends
from fastmlp.cli.datasets import load_data
from fastmlp.cli.messages import WRONG
from fastmlp.cli.options import Json, option
from fastmlp.errors import OptionError
from fastmlp.progress import clean, fact, say, working
from fastmlp.report import versions


def info(as_json: Json = False) -> None:
    """Show what was found here: backends, BLAS, threads, versions, and what would run."""
    from fastmlp.backends.numpy import narrow_kernels

    found, (chosen, reason) = backends.available(), backends.select()
    described = chosen.describe()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    facts = {
        "runs": chosen.name, "reason": reason, "device": described.get("device"), "blas": described["blas"],
        "threads": described["threads"], "cpus": cpus, "platform": platform.platform(),
        "versions": versions(described["versions"]), "hint": narrow_kernels(),
    }  # fmt: skip
    if as_json:
        print(json.dumps({"backends": [row._asdict() for row in found], **facts}, indent=1))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("backend", "usable", "computes with, or why not"):
        table.add_column(name, overflow="fold")
    for row in found:
        usable = Text("yes", "green") if row.usable else Text("no", "red")
        table.add_row(Text(row.name, "bold" if row.name == chosen.name else ""), usable, Text(clean(row.reason)))
    Console().print(table, "")
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{library} {number}" for library, number in value.items())
        if value is not None:
            fact(name, value)


def bench(
    rows: Annotated[int | None, option("Work", "N", "Rows of the built-in digits to use", "all, 42,000")] = None,
    rounds: Annotated[int, option("Work", "N", "Times each is measured; the median counts")] = 5,
    as_json: Json = False,
) -> None:
    """Time the usable backends side by side on this machine, and check that they agree.

    A network of 784-160-10: an epoch on the full batch, an epoch in batches of 128, a prediction of all rows.
    """
    from fastmlp import bench as work

    if rounds < 1:
        raise OptionError(f"--rounds: expected a whole number from 1; got {rounds}")
    data = load_data(None)
    rows = len(data.X) if rows is None else rows
    if data.y is None or not work.BATCH <= rows <= len(data.X):
        raise OptionError(f"--rows: expected a whole number from {work.BATCH} to {len(data.X)}; got {rows}")
    found = backends.available()
    with working("measuring"):
        timings = work.measure(data.X[:rows], data.y[:rows], [row.name for row in found if row.usable], rounds)
    wrong = work.disagreements(timings)
    if as_json:
        print(
            json.dumps({"rows": rows, "agree": not wrong, "timings": [asdict(timing) for timing in timings]}, indent=1)
        )
    else:
        Console().print(work.table(timings))
        for row in found:
            if not row.usable:
                fact(row.name, f"not measured: {row.reason}")
    for line in wrong:
        say("error", "red", line)
    if wrong:
        raise typer.Exit(WRONG)
