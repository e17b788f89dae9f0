"""The machine in words, and its threads."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from threadpoolctl import threadpool_limits

WIDTHS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd")  # flags that decide the width of a vector
# How many threads each library starts; read when it is imported. JAX's CPU client asks for NPROC, the rest are BLAS.
VARIABLES = ("NPROC", "PJRT_NPROC", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limit_threads(threads: int, by_variables: bool = True) -> None:
    """No more than `threads` in any library of processes to come, and, on Linux, no more cores.

    Here NumPy gets one thread: results are judged here, and a second would spin on while the next library is timed.

    Without `by_variables` cores alone set the limit; joblib may then share them out among its workers, as it does by
    setting the same variables where they are not set.
    """
    if by_variables:
        os.environ.update(dict.fromkeys(VARIABLES, str(threads)))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    threadpool_limits(1)


def cpuinfo(field: str) -> str:
    """A field of /proc/cpuinfo, of the first core; empty elsewhere than on Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def describe() -> dict[str, object]:
    """CPU model, cores, vector flags, memory, system and load: no name of the machine."""
    flags = (cpuinfo("flags") or cpuinfo("Features")).split()
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "cpu": cpuinfo("model name") or platform.processor() or platform.machine(),
        "cpu family, model": " ".join((cpuinfo("cpu family"), cpuinfo("model\t"))).strip(),
        "cores": cores(),
        "vector flags": [flag for flag in WIDTHS if flag in flags],
        "virtual": "hypervisor" in flags,
        "memory GiB": round(pages / 2**30),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "load average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }
