"""The rows of the table: what is compared, and which libraries take part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .check import CHECKS, FEW, WrongResult, epoch_check
from .contract import LIBRARIES, OURS
from .jobs import ROWS, Job, Source, images_name
from .process import Process, ProcessFailed
from .rounds import Candidate
from .work import EPOCHS, Opened

CALLS = 200  # predictions of one row in one reading of the clock
WHOLE = (*OURS, "sklearn")  # have a call for a whole training


class Entry(NamedTuple):
    """A job of a row."""

    job: Job
    label: str = ""  # put behind the names of its candidates
    libraries: tuple[str, ...] = tuple(LIBRARIES)


class Row(NamedTuple):
    """One line of the table; the first candidate of its first entry is what the others are compared with."""

    key: str  # for --only and the record
    title: str
    work: str  # a key of `work.WORK`
    entries: tuple[Entry, ...]
    times: int = 1  # runs in one reading of the clock


class Ready(NamedTuple):
    """The candidates of a row."""

    flop: float  # of one run
    candidates: list[Candidate]
    refused: dict[str, str]  # libraries that cannot do it, and why
    failed: dict[str, str]  # candidates, or libraries, that went wrong at the first steps


def ready(row: Row, processes: Mapping[str, Process]) -> Ready:
    """Open a row in every process that takes part, with those candidates that agree after a few steps."""
    job = row.entries[0].job
    flop = {"epoch": job.flop, "whole": lambda: EPOCHS * job.flop()}.get(row.work, job.flop_forward)()
    opened = Ready(flop / len(job.data.y) if row.work == "label" else flop, [], {}, {})
    taking = [
        (entry, process)
        for entry in row.entries
        for library, process in processes.items()
        if library in entry.libraries
    ]
    if row.work == "epoch":
        for entry, process in taking:
            opened.failed.update(wrong_at_first(entry, row.times, process))
    for process in processes.values():
        process.call("clear")
    checks = {entry: CHECKS[row.work](entry.job, row.times) for entry in row.entries}
    for entry, process in taking:
        library = f"{process.name} {entry.label}".strip()
        try:
            found: Opened = process.call("open", row.work, entry.job, entry.label)
        except ProcessFailed as error:
            opened.failed[library] = str(error)
            continue
        if found.refused:
            opened.refused[library] = found.refused
        opened.candidates.extend(
            Candidate(name, process, checks[entry], row.times) for name in found.names if name not in opened.failed
        )
    return opened


def wrong_at_first(entry: Entry, times: int, process: Process) -> dict[str, str]:
    """Candidates that do not agree closely after a few steps, where a reading takes more of them; and why."""
    job = entry.job
    if job.full and times <= FEW:
        return {}  # every reading is checked as closely
    few, times = (job, FEW) if job.full else (job.head(FEW), 1)
    check, failed = epoch_check(few, times), {}
    process.call("clear")
    try:
        names = process.call("open", "epoch", few, entry.label).names
    except ProcessFailed as error:
        return {f"{process.name} {entry.label}".strip(): str(error)}
    for name in names:
        try:
            check(name, process.call("run", name, times).outcome)
        except (ProcessFailed, WrongResult) as error:
            failed[name] = str(error)
    return failed


def rows(most: int | None, threads: int) -> list[Row]:
    """All rows of the table, with `most` rows of data at most."""

    def capped(count: int) -> int:
        return count if most is None else min(most, count)

    def pixels(*hidden: int, batch: int = ROWS, rule: str = "momentum", rate: float = 0.2) -> Job:
        return Job(Source("images", capped(ROWS)), hidden or (160,), batch, rule, rate, threads)

    name = images_name()
    full, batch_128 = pixels(), pixels(batch=128)
    dense = Job(Source("dense", capped(ROWS)), (160,), ROWS, "momentum", 0.05, threads)
    small = Job(Source("dense", capped(16_000), 16, 26), (100,), 200, "adam", 1e-3, threads)

    def alone(job: Job) -> tuple[Entry, ...]:
        return Entry(job, "", ("numba",)), Entry(job._replace(threads=1), "on 1 thread", ("numba",))

    return [
        Row("full-dense", f"full batch, {ROWS:,} dense rows, 784-160-10", "epoch", (Entry(dense),)),
        Row("full", f"full batch, {name}, 784-160-10", "epoch", (Entry(full),)),
        Row("batch-128", f"batch 128, momentum, {name}, 784-160-10", "epoch", (Entry(batch_128),)),
        Row("batch-32", f"batch 32, momentum, {name}, 784-160-10", "epoch", (Entry(pixels(batch=32, rate=0.1)),)),
        Row("adam-small", "batch 200, Adam, 16,000 dense rows, 16-100-26", "epoch", (Entry(small),)),
        Row("adam-deep", f"batch 256, Adam, {name}, 784-512-512-10", "epoch",
            (Entry(pixels(512, 512, batch=256, rule="adam", rate=1e-3)),)),
        Row("bfloat16", f"full batch, {ROWS:,} dense rows, 784-160-10, bfloat16", "epoch",
            (Entry(dense._replace(precision="bfloat16"), "", ("numba", "jax", "torch")),
             Entry(dense, "in float32", ("numba",)))),
        Row("predict", f"predict_proba of {ROWS:,} rows, {name}", "proba", (Entry(full),)),
        Row("predict-one", "predict one row", "label", (Entry(full),), CALLS),
        Row("train", f"{EPOCHS} epochs by one call, batch 128, {name}", "whole", (Entry(batch_128, "", WHOLE),)),
        Row("threads-full", f"second thread, full batch, {name}", "epoch", alone(full)),
        Row("threads-128", f"second thread, batch 128, {name}", "epoch", alone(batch_128)),
    ]  # fmt: skip
