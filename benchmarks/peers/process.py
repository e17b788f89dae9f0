"""A process for each library, so that none computes, or spins while it waits, when another is timed.

A process is spawned, never forked, and serves one call at a time over a pipe. Between calls it is stopped by a signal,
so that no thread of it runs. Libraries thus keep their own defaults for waiting threads: OMP_WAIT_POLICY=PASSIVE or
KMP_BLOCKTIME=0 would quiet them too, but would act while they are timed as well.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

CAN_STOP = hasattr(signal, "SIGSTOP") and hasattr(os, "waitid")
PAUSE = 0.1  # s before each call where a process cannot be stopped: longer than libraries let their threads spin
PATIENCE = 5  # s for a process to end by itself, and with it the processes that it has started
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class ProcessFailed(Exception):
    """A call raised in its process, or the process ended; holds what it said."""


class Process:
    """An object in a process of its own, made there by `make(*arguments)`, whose methods can be called from here.

    Arguments and results travel pickled; `make` by its name. Raises ProcessFailed, as `call` does.
    """

    def __init__(self, name: str, make: Callable[..., Any], *arguments: Any):
        self.name = name
        self.pipe, theirs = get_context("spawn").Pipe()
        self.process = get_context("spawn").Process(target=serve, args=(theirs, make, arguments))
        self.process.start()
        self.pid: int = self.process.pid or 0
        atexit.register(self.process.kill)  # before multiprocessing waits for it: a stopped one would not end
        theirs.close()  # or the end of the process would not be seen
        try:
            self.answer()
        except ProcessFailed:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of a method of the object. Raises ProcessFailed."""
        if not self.process.is_alive():
            raise ProcessFailed(f"{self.name}: the process has ended with exit code {self.process.exitcode}")
        if CAN_STOP:
            os.kill(self.pid, signal.SIGCONT)
        else:
            time.sleep(PAUSE)
        self.pipe.send((method, arguments))
        return self.answer()

    def answer(self) -> Any:
        """What the process sends next; it is stopped then."""
        try:
            good, result = self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            raise ProcessFailed(f"{self.name}: the process ended with exit code {code} during a call") from None
        self.stop()
        if not good:
            raise ProcessFailed(f"{self.name}: {result}")
        return result

    def stop(self) -> None:
        """Stop the process, where the system can, and wait until it has stopped."""
        if CAN_STOP:
            os.kill(self.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def close(self) -> None:
        """Let the process end, or end it where it takes long."""
        self.pipe.close()
        if CAN_STOP and self.process.is_alive():
            os.kill(self.pid, signal.SIGCONT)
        self.process.join(PATIENCE)
        self.process.kill()
        self.process.join()


def serve(pipe: Connection, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """In the process: make the object, then answer calls until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear; it ends this process
    if sys.platform == "linux":  # a stopped process would outlive a parent that was killed
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    made, call = attempt(make, arguments)
    pipe.send((made, None if made else call))
    while made:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(getattr(call, method), arguments))


def attempt(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    """Whether a call succeeded, and its result or the traceback as text."""
    try:
        return True, function(*arguments)
    except Exception:
        return False, traceback.format_exc()
