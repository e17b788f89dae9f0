"""A plain thread, which may be made to begin on another core than its caller's.

Linux often lets a new thread wait for the core of the one that started it, though others are idle, and moves it some
milliseconds later. A team of threads whose work is done by then would have worked one after the other.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import sys
from collections.abc import Callable

WORD = 8  # bytes: the C library takes a set of cores as words of bits
if sys.platform == "linux":
    LIBC = ctypes.PyDLL(None)  # called without letting go of Python's lock, since its functions take no time
    LIBC.pthread_setaffinity_np.argtypes = [ctypes.c_ulong, ctypes.c_size_t, ctypes.c_char_p]


def start(work: Callable[[], None], elsewhere: bool) -> None:
    """Run work(), which must not raise, in a new thread; it begins on another core if it is to and there is one.

    From then on the thread may run on all cores that the caller may use. Raises RuntimeError if the system gives no
    more threads.
    """
    allowed = os.sched_getaffinity(0) if elsewhere and sys.platform == "linux" else set()
    others = allowed - {LIBC.sched_getcpu()} if len(allowed) > 1 else set()
    if not others:
        _thread.start_new_thread(work, ())
        return
    placed = _thread.allocate_lock()
    placed.acquire()

    def begin() -> None:
        placed.acquire()  # a thread that is gone cannot be placed
        os.sched_setaffinity(0, allowed)
        work()

    thread = _thread.start_new_thread(begin, ())
    size = (max(others) // (8 * WORD) + 1) * WORD
    bits = sum(1 << core for core in others).to_bytes(size, "little")
    LIBC.pthread_setaffinity_np(thread, size, bits)  # where the system refuses, nothing is lost but time
    placed.release()
