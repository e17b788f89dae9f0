"""What one fresh process measures about itself: `python -m benchmarks.fresh WHAT FOLDER THREADS` prints it as JSON.

FOLDER holds X.npy, y.npy. Nothing is imported here that fastmlp would have to import itself; reads Linux's /proc.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

FITS = 200
MB = 1e6


def status(field: str) -> int:
    """A number of /proc/self/status; sizes are in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{field}:")))


def resident() -> float:
    """MB of memory in use now."""
    return status("VmRSS") * 1024 / MB


def peak_from_now() -> None:
    """Begin to watch the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """MB of memory at the peak since `peak_from_now`."""
    return status("VmHWM") * 1024 / MB


def load(folder: Path) -> Any:
    """X (N, 784) uint8, y (N,)."""
    import numpy as np

    return np.load(folder / "X.npy"), np.load(folder / "y.npy")


def options(threads: int, batch: int | str) -> dict[str, Any]:
    """Of a training on the numba backend."""
    return {"backend": "numba", "strict": True, "batch_size": batch, "threads": threads, "progress": False}


def epoch(folder: Path, threads: int) -> dict[str, float]:
    """Seconds from `import fastmlp` to the end of one epoch in batches of 128, data read from a file included."""
    started = time.perf_counter()
    import fastmlp

    imported = time.perf_counter()
    X, y = load(folder)
    model = fastmlp.train(X, y, epochs=1, **options(threads, 128))
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "import": imported - started, "epoch": model.history.seconds[0],
            "accuracy": model.history.train_accuracy[0]}  # fmt: skip


def memory(folder: Path, threads: int, batch: int | str) -> dict[str, float]:
    """MB at the peak of three epochs, above the imported libraries and the data."""
    import fastmlp

    usable = fastmlp.backends.load("numba")  # imports what the backend stands on
    assert not isinstance(usable, str), usable
    libraries = resident()
    X, y = load(folder)
    X.sum(), y.sum()  # all of it is in memory now
    before = resident()
    peak_from_now()
    fastmlp.train(X, y, epochs=3, **options(threads, batch))
    return {"libraries MB": libraries, "data MB": before - libraries, "above MB": peak() - before}


def batches(folder: Path, threads: int) -> dict[str, float]:
    """`memory` in batches of 128."""
    return memory(folder, threads, 128)


def full(folder: Path, threads: int) -> dict[str, float]:
    """`memory` of the full batch."""
    return memory(folder, threads, "full")


def fits(folder: Path, threads: int) -> dict[str, Any]:
    """MB and threads after each of many small fits in a row, and the most threads seen during them."""
    import fastmlp

    X, y = load(folder)
    X, y = X[:2_000], y[:2_000]
    fastmlp.train(X, y, epochs=1, **options(threads, 128))
    before, most, done = status("Threads"), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.001):
            most = max(most, status("Threads"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    after = []
    for _ in range(FITS):
        fastmlp.train(X, y, epochs=1, **options(threads, 128))
        after.append((resident(), status("Threads")))
    done.set()
    watcher.join()
    megabytes, count = zip(*after, strict=True)
    return {
        "MB": megabytes, "threads": [number - 1 for number in count], "threads before": before,
        "threads at most": most - 1,  # without the watcher
    }  # fmt: skip


WHAT = {function.__name__: function for function in (epoch, batches, full, fits)}

if __name__ == "__main__":
    print(json.dumps(WHAT[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
