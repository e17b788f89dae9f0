"""The barrier of plain threads, and the team that runs on it."""

import ctypes
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from running import running, settled

pytest.importorskip("numba")

from fastmlp.kernels.cpu.cache import for_python
from fastmlp.kernels.cpu.team import STOP, atomic_add, atomic_load, barrier, new_team, stopped
from numba import njit

from fastmlp.backends import new_thread, numba_team
from fastmlp.backends.numba_team import BRIEF, run_team
from fastmlp.backends.threads import cores

call = for_python(barrier, stopped)
LARGE = 10 * BRIEF  # flop


@njit(nogil=True)
def count_together(team, threads, phases, shared, slots, thread):
    """How often, after a barrier, not every thread was seen to have done its part; -1 if asked to stop."""
    wrong = 0
    for done in range(phases):
        atomic_add(shared.ctypes.data, 1)
        slots[8 * thread] = done
        if not barrier(team, threads, 2 * done + 1):
            return -1
        wrong += atomic_load(shared.ctypes.data) != threads * (done + 1)
        for other in range(threads):
            wrong += slots[8 * other] != done
        if not barrier(team, threads, 2 * done + 2):
            return -1
    return wrong


@njit(nogil=True)
def wait_for_stop(team, threads):
    """Come to a barrier to which one thread of the team never comes."""
    return barrier(team, threads, 1)


@njit(nogil=True)
def spin(team):
    """Work that looks at the team's STOP now and then."""
    while not stopped(team):
        pass


def run_phases(threads, phases):
    """Seconds it took `threads` to pass so many barriers twice; each saw all others' work at each."""
    shared, slots = np.zeros(1, np.int64), np.zeros(8 * threads, np.int64)
    wrong = [None] * threads
    count_together(new_team().ctypes.data, 1, 1, shared, slots, 0)  # compiled now
    shared[:] = 0

    def work(thread, team):
        wrong[thread] = count_together(team, threads, phases, shared, slots, thread)

    began = time.perf_counter()
    run_team(threads, LARGE, work)
    assert wrong == [0] * threads
    assert shared[0] == threads * phases
    return time.perf_counter() - began


@pytest.mark.parametrize(("threads", "phases"), [(1, 100), (2, 20_000), (5, 300)])
def test_nobody_passes_a_barrier_before_all_have_come(threads, phases):
    run_phases(threads, phases)


def test_the_barrier_gives_way_to_threads_that_have_no_core():
    # Without giving way each of the barriers would cost a time slice or more, several milliseconds.
    assert run_phases(2 * cores() + 1, 1000) < 4


def test_work_knows_its_thread_and_shares_a_team():
    seen = []
    run_team(3, LARGE, lambda thread, team: seen.append((thread, team)))
    assert sorted(thread for thread, _ in seen) == [0, 1, 2]
    assert len({team for _, team in seen}) == 1


@pytest.mark.parametrize(("threads", "flop", "takes_part"), [(1, 0, True), (3, 0, True), (3, LARGE, False)])
def test_the_caller_is_one_of_a_brief_team_only(threads, flop, takes_part):
    seen = []
    run_team(threads, flop, lambda thread, team: seen.append((thread, threading.get_ident())))
    assert sorted(thread for thread, _ in seen) == list(range(threads))
    assert ((0, threading.get_ident()) in seen) == takes_part
    assert sum(ident == threading.get_ident() for _, ident in seen) == takes_part


@pytest.mark.parametrize(("threads", "flop"), [(1, 1), (1, LARGE), (2, LARGE), (5, LARGE)])
def test_a_thread_that_raises_stops_the_others_and_its_error_arrives(threads, flop):
    returned = []
    wait_for_stop(new_team().ctypes.data, 1)  # compiled now

    def work(thread, team):
        if thread == threads - 1:
            time.sleep(0.05)
            raise ValueError("the last")
        returned.append(wait_for_stop(team, threads))

    began, before = time.perf_counter(), running()
    with pytest.raises(ValueError, match="the last"):
        run_team(threads, flop, work)
    assert returned == [False] * (threads - 1)
    assert time.perf_counter() - began < 2
    assert settled(before)


@pytest.mark.parametrize("flop", [1, LARGE])
def test_a_thread_that_the_system_does_not_give_is_not_waited_for(flop, monkeypatch):
    wait_for_stop(new_team().ctypes.data, 1)  # compiled now

    def refused(work, elsewhere, start=numba_team.start):
        if work.args == (2,):
            raise RuntimeError("can't start new thread")
        start(work, elsewhere)

    monkeypatch.setattr(numba_team, "start", refused)
    began, before = time.perf_counter(), running()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        run_team(4, flop, lambda thread, team: wait_for_stop(team, 4))
    assert time.perf_counter() - began < 2
    assert settled(before)


@pytest.mark.skipif(sys.platform != "linux" or cores() == 1, reason="needs Linux and two cores")
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_thread_begins_where_it_is_told_and_may_run_on_all(elsewhere, monkeypatch):
    core, allow, all_cores = ctypes.CDLL(None).sched_getcpu, os.sched_setaffinity, os.sched_getaffinity(0)
    two = {min(all_cores), max(all_cores)}
    before, after, done = [], [], threading.Event()

    def work():
        after.append(os.sched_getaffinity(0))
        done.set()

    def look(thread, cores):
        before.append(os.sched_getaffinity(0))
        allow(thread, cores)

    monkeypatch.setattr(os, "sched_setaffinity", look)
    allow(0, two)
    try:
        for _ in range(10):
            here = core()
            done.clear()
            new_thread.start(work, elsewhere)
            done.wait()
            if core() == here:  # the caller has not moved meanwhile
                assert before[-1] == (two - {here} if elsewhere else {here})
    finally:
        allow(0, all_cores)
    assert len(before) == 10
    assert after == [two] * 10


@pytest.mark.skipif(sys.platform != "linux" or cores() == 1, reason="needs Linux and two cores")
@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_thread_runs_where_the_system_refuses_to_place_it(elsewhere, monkeypatch):
    def refuse(*_):
        raise PermissionError

    done = threading.Semaphore(0)
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    new_thread.start(done.release, elsewhere)
    monkeypatch.setattr(new_thread.LIBC, "sched_getcpu", lambda: -1)  # not known
    new_thread.start(done.release, elsewhere)
    for _ in range(2):
        assert done.acquire(timeout=5)


def test_work_may_begin_anew_after_an_error():
    with pytest.raises(ZeroDivisionError):
        run_team(2, LARGE, lambda thread, team: 1 / 0)
    run_phases(2, 10)


def test_stop_ends_those_who_wait_and_those_who_work():
    spin_team = new_team()
    spin_team[STOP] = 1
    spin(spin_team.ctypes.data)  # compiled now
    team = new_team()
    assert not call.stopped(team.ctypes.data)
    members = [threading.Thread(target=target, args=arguments, daemon=True) for target, arguments in (
        (spin, (team.ctypes.data,)), (wait_for_stop, (team.ctypes.data, 3)), (wait_for_stop, (team.ctypes.data, 3)),
    )]  # fmt: skip
    for member in members:
        member.start()
    time.sleep(0.05)
    assert all(member.is_alive() for member in members)
    team[STOP] = 1
    for member in members:
        member.join(2)
    assert not any(member.is_alive() for member in members)
    assert not call.barrier(team.ctypes.data, 1, 1)


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(SIGINT) ends the process there")
def test_control_c_waits_for_the_members_to_leave():
    """Else they would still write into the network when the caller goes on."""
    ended = []
    asked = new_team()
    asked[STOP] = 1
    spin(asked.ctypes.data)  # compiled now

    def work(thread, team):
        if thread == 2:
            time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGINT)
        spin(team)
        time.sleep(0.3 - 0.1 * thread)  # a tile that it has yet to finish
        ended.append(thread)

    with pytest.raises(KeyboardInterrupt):
        run_team(3, LARGE, work)
    at_return = sorted(ended)
    time.sleep(0.5)
    assert at_return == [0, 1, 2]


def test_cores_are_those_the_process_may_use():
    assert 1 <= cores() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        allowed = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(allowed)})
        try:
            assert cores() == 1
        finally:
            os.sched_setaffinity(0, allowed)
