"""What fastmlp takes besides time: memory, threads, and the seconds of a process that starts afresh.

    FASTMLP_MNIST=FOLDER python -m benchmarks.footprint [--rows N] [--rounds R] [--threads T] [--record]

Each reading is a process of its own (`benchmarks.fresh`) on the numba backend, with MNIST's first 42,000 images as
uint8. Compiled code is kept in a folder made for the run: empty for the readings without a cache. Linux only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from .peers import machine, record
from .peers.jobs import ROWS, Source, images_name
from .peers.options import THREADS, Folder, Keep, Threads
from .peers.rounds import spread

ROOT = Path(__file__).parents[1]
SETTLED = 20  # fits after which memory and threads should have stopped growing
LEAST = 0.85  # training accuracy of the first epoch; less, and it was not training
HEADS = ("", "median", "p10", "p90")


def fresh(what: str, data: Path, cache: Path, threads: int) -> dict[str, Any]:
    """What a process measures about itself. Raises RuntimeError with what it wrote if it fails."""
    command = [sys.executable, "-m", "benchmarks.fresh", what, str(data), str(threads)]
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{what}: the process ended with exit code {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def measure(folder: Path, rows: int, rounds: int, threads: int) -> dict[str, list[dict[str, Any]]]:
    """All readings, by what was measured; `folder` is for data and caches."""
    data = Source("images", rows).load()
    np.save(folder / "X.npy", data.raw)
    np.save(folder / "y.npy", data.y)
    kept = folder / "kept"
    found = {"without cache": [fresh("epoch", folder, folder / f"cache {turn}", threads) for turn in range(rounds)]}
    fresh("epoch", folder, kept, threads)
    found["with cache"] = [fresh("epoch", folder, kept, threads) for _ in range(rounds)]
    least = min(reading["accuracy"] for readings in found.values() for reading in readings)
    if rows >= ROWS and least < LEAST:  # fewer rows only try the script
        raise RuntimeError(f"expected an epoch to reach a training accuracy of {LEAST}; got {least:.3f}")
    for what in ("batches", "full", "fits"):
        fresh(what, folder, kept, threads)  # compiles what only it needs
        found[what] = [fresh(what, folder, kept, threads) for _ in range(1 if what == "fits" else rounds)]
    return found


def lines(found: Mapping[str, list[dict[str, Any]]]) -> list[tuple[str, ...]]:
    """The table: what, median, p10 and p90."""

    def line(title: str, numbers: Sequence[float]) -> tuple[str, ...]:
        return (title, *(f"{number:.3g}" for number in spread(numbers)))

    def column(what: str, key: str) -> list[float]:
        return [reading[key] for reading in found[what]]

    fits = found["fits"][0]
    after = min(SETTLED, len(fits["MB"])) - 1
    return [
        line("seconds from `import fastmlp` to the end of an epoch, batch 128, cache kept",
             column("with cache", "seconds")),
        line("the same without cache", column("without cache", "seconds")),
        line("of these, `import fastmlp`", column("with cache", "import")),
        line("MB above libraries and data at the peak, batch 128", column("batches", "above MB")),
        line("MB above libraries and data at the peak, full batch", column("full", "above MB")),
        line("MB of the libraries", column("batches", "libraries MB")),
        line("MB of the data", column("batches", "data MB")),
        line(f"MB by which memory grew from fit {after + 1} to fit {len(fits['MB'])}",
             [fits["MB"][-1] - fits["MB"][after]]),
        line(f"threads by which the process grew over {len(fits['MB'])} fits",
             [fits["threads"][-1] - fits["threads before"]]),
        line("threads of the process at most, during the fits", [fits["threads at most"]]),
    ]  # fmt: skip


def document(facts: Mapping[str, Any], table: Sequence[Sequence[str]]) -> str:
    """The table, with what this module tells of it."""
    about = (__doc__ or "").partition("\n\n")[2].partition("\n\n")[2]
    head = f"# {facts['date']}: memory, threads, and a fresh start\n\n`{facts['command']}`, {facts['threads']} threads."
    return f"{head} Images are {facts['images']}.\n\n{about}\n{record.markdown_table(HEADS, table)}\n"


def main(
    rows: Annotated[int, typer.Option(min=60, help="Rows of data.")] = ROWS,
    rounds: Annotated[int, typer.Option(min=1, help="Processes for each number.")] = 5,
    threads: Threads = THREADS,
    keep: Keep = False,
    folder: Folder = record.FOLDER,
) -> None:
    """Measure memory, threads and the seconds of a fresh start."""
    if not Path("/proc/self/clear_refs").exists():
        raise typer.BadParameter("expected Linux, whose /proc tells a process's memory; found none")
    machine.limit_threads(threads)
    about, console = machine.describe(), record.console()
    with tempfile.TemporaryDirectory() as work:
        found = measure(Path(work), rows, rounds, threads)
    console.print(record.plain_table(HEADS, lines(found)))
    if keep:
        facts = record.about(about, record.packages("fastmlp", "numpy", "numba", "llvmlite"), "benchmarks.footprint")
        facts |= {"threads": threads, "rounds": rounds, "rows": rows, "images": images_name(), "readings": found}
        record.keep(folder, "footprint", facts, document(facts, lines(found)), console)


if __name__ == "__main__":
    typer.run(main)
