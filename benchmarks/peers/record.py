"""The outcome: a table for the terminal, and a dated record with every raw number."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from .rounds import spread

FOLDER = Path(__file__).parents[1] / "records"
HEADS = ("", "median ms", "p10", "p90", "times fastmlp", "share of peak")


class Measured(NamedTuple):
    """A row of the table, timed."""

    key: str
    title: str
    flop: float  # of one run
    seconds: dict[str, list[float]]  # by candidate; fastmlp's fastest backend first
    refused: dict[str, str]  # libraries that cannot do it, and why
    failed: dict[str, str]  # candidates that failed or were wrong, and what was said


def console() -> Console:
    """The terminal, or a pipe, of which Rich thinks as 80 columns: too few."""
    found = Console()
    return found if found.is_terminal else Console(width=120)


def command(module: str) -> str:
    """What was typed, without the machine's folders."""
    return " ".join([f"python -m {module}", *(Path(word).name for word in sys.argv[1:])])


def about(machine: Mapping[str, Any], versions: Mapping[str, str], module: str) -> dict[str, Any]:
    """What every record begins with: date, command, machine, and the versions of all that ran."""
    today = datetime.date.today().isoformat()
    return {"date": today, "command": command(module), "machine": machine, "versions": versions}


def packages(*names: str) -> dict[str, str]:
    """Versions of installed packages."""
    return {name: version(name) for name in names}


def first_of_ours(seconds: Mapping[str, list[float]]) -> float | None:
    """The median of the first candidate of fastmlp, with which the others are compared."""
    return next((spread(found).median for name, found in seconds.items() if name.startswith("fastmlp")), None)


def cells(row: Measured, peak: float) -> list[tuple[str, ...]]:
    """One line of text for each candidate: name, milliseconds, ratio to the first of fastmlp, share of the peak."""
    first, lines = first_of_ours(row.seconds), []
    for name, seconds in row.seconds.items():
        found = spread(seconds)
        times = [f"{1e3 * value:.4g}" for value in found]
        ratio = f"{found.median / first:.2f}" if first else ""
        lines.append((name, *times, ratio, f"{row.flop / found.median / peak:.0%}"))
    return lines + [(line, *[""] * 5) for line in absent(row.refused, row.failed)]


def absent(refused: Mapping[str, str], failed: Mapping[str, str]) -> list[str]:
    """A line for each library that cannot do a row, and for each candidate that failed."""
    return [
        *(f"{library}: not there: {reason}" for library, reason in refused.items()),
        *(f"{name}: FAILED: {told.strip().splitlines()[-1]}" for name, told in failed.items()),
    ]


def terminal_table(measured: Sequence[Measured], peak: float) -> Table:
    """For people."""
    table = Table(*HEADS[:1], title=f"measured peak {peak / 1e9:.0f} GFLOP/s")
    for head in HEADS[1:]:
        table.add_column(head, justify="right")
    for row in measured:
        table.add_row(f"[bold]{row.title}[/]")
        for line in cells(row, peak):
            table.add_row("  " + line[0], *line[1:])
        table.add_section()
    return table


def plain_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """A table for people, of one part."""
    table = Table(*heads)
    for line in lines:
        table.add_row(*line)
    return table


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table for a document."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, rule, *lines))


def words(facts: Mapping[str, Any]) -> str:
    """Facts as one line of text."""
    shown = {key: " ".join(map(str, fact)) if isinstance(fact, list) else fact for key, fact in facts.items()}
    return "; ".join(f"{key}: {fact}" for key, fact in shown.items() if fact not in ("", None))


def keep(folder: Path, stem: str, facts: Mapping[str, Any], document: str, console: Console) -> None:
    """Write the raw numbers as JSON, and a document beside them. `facts` begin as `about` has them."""
    folder.mkdir(parents=True, exist_ok=True)
    raw, text = folder / f"{facts['date']}-{stem}.json", folder / f"{facts['date']}-{stem}.md"
    raw.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    about = f"Machine: {words(facts['machine'])}.\n\nVersions: {words(facts['versions'])}.\n"
    text.write_text(f"{document}\n{about}\nRaw numbers: {raw.name}.\n", encoding="utf-8")
    console.print(f"written: {raw.name}, {text.name}")


def skipped(facts: Mapping[str, Any]) -> str:
    """A line for each library that is missing."""
    return "".join(f"\n\nNot run: {library}, {reason}." for library, reason in facts["not run"].items())


def peers_document(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """The table with what one must know to read it."""
    peak, readings = facts["peak flop/s"]["best"], len(facts["peak flop/s"]["readings"])
    lines = [line for row in measured for line in ((f"**{row.title}**", *[""] * 5), *cells(row, peak))]
    return f"""# {facts["date"]}: fastmlp beside its peers

`{facts["command"]}`: {facts["threads"]} threads in every library, float32 unless a row says otherwise,
{facts["rounds"]} rounds after one of warm-up.

Each library, and each backend of fastmlp, has a process of its own, which is stopped by a signal while others are
timed: no thread of it can spin then, and none has to be told to wait less eagerly than its library has it by default.
Every candidate runs once a round, in an order that rotates. Before it is timed, and after every round, each result is
compared with that of fastmlp's numpy backend on the same rows, order, start and rule: the loss and all parameters after
the first steps and after the epoch (of Adam's epoch only the loss). Of a whole training by one call only the accuracy
is compared: start and shuffles are each library's own.

Images are {facts["images"]}: uint8 pixels for fastmlp, float32 made before the clock starts for the others.

Share of peak: useful flop, zeros counted, over {peak / 1e9:.0f} GFLOP/s, which is fastmlp's float32 product on operands
in the L1 cache, all threads at once, the best of {readings} readings. What skips zeros can pass 100 %, and so can
bfloat16.

{markdown_table(HEADS, lines)}{skipped(facts)}
"""
