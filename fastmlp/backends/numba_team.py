"""A team of plain threads that runs compiled code."""

from __future__ import annotations

import _thread
from collections.abc import Callable
from functools import partial

from fastmlp.backends.new_thread import start
from fastmlp.backends.threads import ENDING, LISTEN, check_ending, cores
from fastmlp.kernels.cpu.team import STOP, new_team

BRIEF = 1e9  # flop that the calling thread may work through itself before it must listen for Ctrl-C
ROW, STEP = 1e3, 2e5  # flop that could be done in the time of all else a row or a step takes


def team_threads(asked: int | None) -> int:
    """Threads of a team: as many as asked for, but one a core at most, since they wait for each other."""
    return min(asked or cores(), cores())


def run_team(threads: int, flop: float, work: Callable[[int, int], None]) -> None:
    """Run work(thread, address of the team's array) in each of `threads` plain threads, and wait for them.

    The calling thread only waits, so that Ctrl-C reaches it, unless the work is brief: then it is one of the team. On
    Ctrl-C it asks the team to stop, waits until all have left, and raises. A thread that raises stops the others, and
    its error is raised here. A caller that Ctrl-C does not reach, but `ENDING`, works alone where one thread is to.
    """
    ending = ENDING.get()
    if threads == 1 and ending is not None:
        work(0, ending.ctypes.data)
        check_ending()
        return
    team, brief = new_team(), flop < BRIEF * threads
    if threads == 1 and brief:
        work(0, team.ctypes.data)
        return
    errors: list[BaseException] = []
    left = [False] * threads
    waits = [_thread.allocate_lock() for _ in range(threads)]  # plain locks: an Event takes its thread far longer
    for lock in waits:
        lock.acquire()

    def member(thread: int) -> None:
        try:
            work(thread, team.ctypes.data)
        except BaseException as error:
            errors.append(error)
            team[STOP] = 1
        finally:
            left[thread] = True
            waits[thread].release()

    for thread in range(brief, threads):
        try:
            start(partial(member, thread), elsewhere=thread > 0)
        except RuntimeError as error:  # the system gives no more threads: those that run must not wait for this one
            errors.append(error)
            team[STOP] = 1
            left[thread:] = [True] * (threads - thread)
            break
    if brief:
        member(0)
    interrupt: KeyboardInterrupt | None = None
    for thread, lock in enumerate(waits):
        while not left[thread]:  # not Thread.join: interrupted once, it would not wait again
            try:
                lock.acquire(timeout=LISTEN)
            except KeyboardInterrupt as error:
                interrupt, team[STOP] = error, 1
    if interrupt is not None:
        raise interrupt
    if errors:
        raise errors[0]
