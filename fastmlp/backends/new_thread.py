"""A plain thread that begins on a core of our choice.

Linux often lets a new thread wait for a core that is busy, that of the one who started it or of another new one, though
others are idle, and moves it some milliseconds later. A team whose work is done by then would have worked in a row.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import sys
from collections.abc import Callable
from contextlib import suppress

WORD = 8  # bytes: the C library takes a set of cores as words of bits
if sys.platform == "linux":
    LIBC = ctypes.PyDLL(None)  # called without letting go of Python's lock, since its functions take no time
    LIBC.pthread_setaffinity_np.argtypes = [ctypes.c_ulong, ctypes.c_size_t, ctypes.c_char_p]


def start(work: Callable[[], None], elsewhere: bool) -> None:
    """Run work(), which must not raise, in a new thread that begins on the caller's core, or elsewhere.

    From then on the thread may run on all cores that the caller may use. Raises RuntimeError if the system gives no
    more threads.
    """
    allowed = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    here = LIBC.sched_getcpu() if len(allowed) > 1 else -1
    if here not in allowed:
        _thread.start_new_thread(work, ())
        return
    cores = allowed - {here} if elsewhere else {here}
    size = (max(cores) // (8 * WORD) + 1) * WORD
    bits = sum(1 << core for core in cores).to_bytes(size, "little")
    placed = _thread.allocate_lock()
    placed.acquire()

    def begin() -> None:
        placed.acquire()  # a thread that is gone cannot be placed
        with suppress(OSError):
            os.sched_setaffinity(0, allowed)
        work()

    thread = _thread.start_new_thread(begin, ())
    LIBC.pthread_setaffinity_np(thread, size, bits)  # where the system refuses, nothing is lost but time
    placed.release()
