"""Threads of the CPU: how many can work at once, and how one that Ctrl-C does not reach is told to end its run.

Python raises KeyboardInterrupt in the main thread alone. A run in another thread looks at that thread's `ENDING`, and
raises KeyboardInterrupt itself once it is set.
"""

from __future__ import annotations

import os
from contextvars import ContextVar

import numpy as np

PLACES = 16  # of int64, as many as a team's array has: compiled code on one thread looks at it as at its team's
LISTEN = 0.1  # seconds until a waiting thread looks up: a signal need not wake it where another thread received it
ENDING: ContextVar[np.ndarray | None] = ContextVar("ENDING", default=None)  # not 0 anywhere: end the run


def cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_ending() -> None:
    """Raises KeyboardInterrupt if this thread was told to end its run."""
    ending = ENDING.get()
    if ending is not None and ending.any():
        raise KeyboardInterrupt
