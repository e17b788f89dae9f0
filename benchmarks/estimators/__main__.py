"""Runs the comparison; see `python -m benchmarks.estimators --help`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console

from benchmarks.peers import machine, record
from benchmarks.peers.options import THREADS, Folder, Keep, Most, Rounds, Threads
from benchmarks.peers.process import Process, ProcessFailed
from benchmarks.peers.rounds import Candidate, measure, spread

from .cases import CASES, FIRST
from .check import as_expected, same_nets
from .work import EPOCHS, MANY, NETS, ROW, Library, Nets

THEIRS = "scikit-learn"
LIBRARIES: dict[str, tuple[str, dict[str, str]]] = {  # the module, and options for its classes
    "fastmlp": ("fastmlp", {}),
    "fastmlp, numba": ("fastmlp", {"backend": "numba"}),
    THEIRS: ("sklearn.neural_network", {}),
}
HEADS = ("", "ms", "p10", "p90", "times as fast")
KEYS = (*CASES, *(f"first-{key}" for key in FIRST), "many")


class Measured(NamedTuple):
    """A row of the table, timed."""

    key: str
    title: str
    seconds: dict[str, list[float]]  # by library, ours first, last what they are compared with
    epochs: dict[str, int]  # that a fit took
    failed: dict[str, str]  # what failed or was wrong, and what was said


class Runs(NamedTuple):
    """How to measure."""

    most: int | None
    rounds: int
    threads: int


def nothing() -> None:
    """Between rounds."""


def fits(key: str, runs: Runs, processes: Mapping[str, Process]) -> Measured:
    """Fits of one case, taking turns."""
    title = CASES[key].title
    try:
        for process in processes.values():
            process.call("open", key, runs.most)
        check = as_expected(processes[THEIRS].call("run", THEIRS).outcome)
        times = measure([Candidate(name, process, check) for name, process in processes.items()], runs.rounds, nothing)
        epochs = {name: len(processes[name].call("run", name).outcome.losses) for name in times.wall}
        for process in processes.values():
            process.call("finish")
    except ProcessFailed as error:
        return Measured(key, title, {}, {}, {key: str(error)})
    return Measured(key, title, times.wall, epochs, times.failed)


def first_fits(key: str, runs: Runs) -> Measured:
    """Import and first fit of one case, in a fresh process each."""
    seconds: dict[str, list[float]] = {name: [] for name in LIBRARIES}
    for _ in range(runs.rounds):
        for name, library in LIBRARIES.items():
            process = Process(name, Library, *library)
            process.call("open", key, runs.most)
            seconds[name].append(process.call("imported") + process.call("run", name).seconds)
            process.close()
    return Measured(f"first-{key}", f"import and first fit of a process: {CASES[key].title}", seconds, {}, {})


def many(runs: Runs) -> Measured:
    """Nets side by side, and one fit after another."""
    process = Process("fastmlp", Nets, runs.most, runs.threads)
    try:
        check = same_nets(process.call("run", ROW).outcome)
        times = measure([Candidate(name, process, check) for name in (MANY, ROW)], runs.rounds, nothing)
    finally:
        process.close()
    return Measured("many", f"{NETS} nets 16-100-26, 16,000 rows, {EPOCHS} epochs", times.wall, {}, times.failed)


def everything(runs: Runs, keys: Sequence[str], console: Console, stack: ExitStack) -> list[Measured]:
    """The rows asked for."""
    processes = {name: Process(name, Library, *library) for name, library in LIBRARIES.items()}
    for process in processes.values():
        stack.callback(process.close)
    ways: dict[str, Callable[[], Measured]] = {
        **{key: lambda key=key: fits(key, runs, processes) for key in CASES},
        **{f"first-{key}": lambda key=key: first_fits(key, runs) for key in FIRST},
        "many": lambda: many(runs),
    }
    measured = []
    for key in keys:
        console.print(f"{key} ...")
        measured.append(ways[key]())
    return measured


def lines(measured: Sequence[Measured]) -> list[tuple[str, ...]]:
    """The table: milliseconds of each, and how many times as fast as the last it is."""
    found: list[tuple[str, ...]] = []
    for row in measured:
        found.append((row.title, *[""] * 4))
        found += [(line, *[""] * 4) for line in record.absent({}, row.failed)]
        spreads = {} if row.failed else {name: spread(seconds) for name, seconds in row.seconds.items()}
        for name, times in spreads.items():
            last = list(spreads.values())[-1]
            cells = (f"{1e3 * value:.4g}" for value in times)
            found.append((f"- {name}", *cells, f"{last.median / times.median:.2f}"))
    return found


def document(facts: Mapping[str, Any], measured: Sequence[Measured]) -> str:
    """The table with what one must know to read it."""
    return f"""# {facts["date"]}: fastmlp's estimators beside scikit-learn's

`{facts["command"]}`: {facts["threads"]} threads, {facts["rounds"]} rounds after one of warm-up. Each library
has a process of its own, stopped while another fits; they take turns.

Estimators have their defaults but for what a row names, and random_state 0. So "fastmlp" chooses its backend itself,
and finds the compiled code that "fastmlp, numba", with backend="numba", has left in its warm-up. Before a time counts,
the loss of each of the first 30 epochs is compared with scikit-learn's, to 1e-6 of it in float64 and 1e-3 in float32,
and the scores after the last; of a search, the scores of all candidates.

{record.markdown_table(HEADS, lines(measured))}
"""


def main(
    most: Most = None,
    rounds: Rounds = 5,
    threads: Threads = THREADS,
    only: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(KEYS)}; may be given again.")] = None,
    keep: Keep = False,
    folder: Folder = record.FOLDER,
) -> None:
    """Time fits of MLPClassifier and MLPRegressor beside scikit-learn's."""
    if unknown := set(only or ()) - set(KEYS):
        raise typer.BadParameter(f"--only: expected one of {', '.join(KEYS)}; got {', '.join(sorted(unknown))}")
    machine.limit_threads(threads, by_variables=False)
    about, console = machine.describe(), record.console()
    with ExitStack() as stack:
        measured = everything(Runs(most, rounds, threads), only or KEYS, console, stack)
    console.print(record.plain_table(HEADS, lines(measured)))
    if keep:
        facts = record.about(about, record.packages("fastmlp", "numpy", "numba", "scikit-learn", "scipy"), __package__)
        facts |= {"threads": threads, "rounds": rounds, "most rows": most,
                  "table": [row._asdict() for row in measured]}  # fmt: skip
        record.keep(folder, "estimators", facts, document(facts, measured), console)
    if any(row.failed for row in measured):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
