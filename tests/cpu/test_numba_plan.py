"""Epochs in phases and in tiles against the generic learner over NumPy; threads, layouts, Ctrl-C, processes."""

import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import running, settled
from steps import epoch, learner, run
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp import train
from fastmlp.backends import numba_learner, numba_plan, numba_ways
from fastmlp.backends.base import Rows
from fastmlp.backends.numba_team import ROW, STEP
from fastmlp.backends.numba_ways import LARGE
from fastmlp.optimizers import OPTIMIZERS

BATCH = {"phases": 48, "tiles": LARGE + 7}
ROWS = {"phases": 211, "tiles": 2 * LARGE + 99}  # the last batch is smaller
DEPTHS = [(19, 3), (19, 23, 5), (19, 50, 9, 4), (19, 8, 7, 6, 3)]
NET = (70, 33, 7)  # wide enough that zeros may be skipped


@pytest.fixture(autouse=True)
def threads_at_any_size(monkeypatch):
    """Small work, too, is split over the threads asked for; small batches take phases, of small networks too."""
    monkeypatch.setattr(numba_learner, "ALONE", 0)
    monkeypatch.setattr(numba_plan, "START", 0)
    monkeypatch.setattr(numba_ways, "SMALL", 0)
    monkeypatch.setattr(numba_ways, "FEW", 0)


def data(n, sizes, real, kind="normal", seed=0):
    """X (n, I), y (n,) int32. "pixels" are uint8; "sparse" numbers or pixels are zero but for one in ten."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, sizes[-1], n).astype(np.int32)
    X = rng.standard_normal((n, sizes[0])).astype(real)
    if "pixels" in kind:
        X = rng.integers(0, 256, X.shape, dtype=np.uint8)
    if "sparse" in kind:
        X[rng.random(X.shape) < 0.9] = 0
        X[:, sizes[0] // 2] = X[n // 2] = 0  # a column and a row of nothing
        X[n // 3] = 1
    return X, y


def assert_same_run(got, want, real):
    """Curves and parameters agree."""
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        assert_close(one, other, real, "run")


def check_epochs(real, sizes, rule, threads, kinds=("phases", "tiles"), content="normal", more=True):
    """Epochs of both kinds, and if `more`, evaluation and logits, are the generic plan's over NumPy."""
    for kind in kinds:
        X, y = data(ROWS[kind], sizes, real, content)
        rows, batch = Rows(X, y), BATCH[kind]
        reference = learner("numpy", sizes, real, rule)
        want = run(reference, rows, batch)
        made = learner("numba", sizes, real, rule, threads)
        assert_same_run(run(made, rows, batch), want, real)
        if more:
            assert_close(made.plan.evaluate(rows), reference.plan.evaluate(rows), real, "run")
            assert_close(made.plan.logits(X), reference.plan.logits(X), real, "run")


@pytest.mark.parametrize("sizes", DEPTHS, ids=str)
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_epochs_are_the_generic_learners(sizes, rule):
    for threads in (1, 2, 3, 5):
        check_epochs("float32", sizes, rule, threads)


def test_epochs_in_double_precision():
    for threads in (1, 3):
        for rule in OPTIMIZERS:
            check_epochs("float64", (19, 23, 5), rule, threads, more=False)


@pytest.mark.parametrize("content", ["pixels", "sparse pixels", "sparse"])
def test_epochs_of_pixels_and_of_zeros(content):
    for threads in (1, 2, 5):
        if content == "sparse pixels":
            check_epochs("float32", NET, "momentum", threads, ("tiles",), content)
        X, y = data(300, NET, "float32", content)
        rows = Rows(X, y, np.random.default_rng(1).permutation(300)[:290])
        want = run(learner("numpy", NET, "float32"), rows, 64)
        assert_same_run(run(learner("numba", NET, "float32", threads=threads), rows, 64), want, "float32")


# Few rows, odd batches, any team.


@settings(max_examples=60)
@given(st.integers(1, 80), st.integers(1, 90), st.sampled_from([1, 2, 3, 5]), st.sampled_from(list(OPTIMIZERS)))
def test_any_number_of_rows_in_batches_of_any_size(n, batch, threads, rule):
    X, y = data(n, (19, 23, 5), "float32", seed=n)
    want = run(learner("numpy", (19, 23, 5), "float32", rule), Rows(X, y), batch, 2)
    got = run(learner("numba", (19, 23, 5), "float32", rule, threads), Rows(X, y), batch, 2)
    assert_same_run(got, want, "float32")


@pytest.mark.parametrize("n", [1, 2, 3, 4, 113, 337])
def test_fewer_rows_than_threads_in_tiles(n):
    X, y = data(n, (19, 23, 5), "float32")
    want = run(learner("numpy", (19, 23, 5), "float32"), Rows(X, y), 2 * LARGE)
    for threads in (2, 5):
        made = learner("numba", (19, 23, 5), "float32", threads=threads)
        assert_same_run(run(made, Rows(X, y), 2 * LARGE), want, "float32")
        assert made.steps == 3


def test_a_learner_takes_batches_of_changing_size_and_kind():
    """Full, small, smaller and larger batches, dense and sparse rows, one after the other, on one learner."""
    contents = ("sparse pixels", "pixels", "sparse pixels")
    both = [learner(name, NET, "float32", "adam", 2) for name in ("numpy", "numba")]
    for turn, batch in enumerate((64, 2 * LARGE, 30, 100, 7, 2 * LARGE)):
        X, y = data(300, NET, "float32", contents[turn % 3], seed=turn)
        assert_close(*(epoch(made, Rows(X, y), batch) for made in reversed(both)), "float32", "run")
    assert_close(both[1].plan.parameters, both[0].plan.parameters, "float32", "run")
    assert_close(both[1].state, both[0].state, "float32", "run")
    assert both[1].steps == both[0].steps


# Threads.


@pytest.mark.parametrize("content", ["normal", "sparse pixels"])
def test_any_number_of_threads_gives_the_same_but_for_rounding(content):
    X, y = data(317, NET, "float32", content)
    rows = Rows(X, y, np.random.default_rng(0).permutation(317))
    ends = [run(learner("numba", NET, "float32", "adam", threads), rows, 50) for threads in (1, 2, 3, 5)]
    for end in ends[1:]:
        assert_same_run(end, ends[0], "float32")


@pytest.mark.parametrize("kind", BATCH)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_same_threads_give_the_same_bits(kind, threads):
    X, y = data(ROWS[kind], NET, "float32", "sparse pixels")
    ends = [run(learner("numba", NET, "float32", threads=threads), Rows(X, y), BATCH[kind]) for _ in range(3)]
    for curve, parameters in ends[1:]:
        assert parameters.tobytes() == ends[0][1].tobytes()
        assert curve.tobytes() == ends[0][0].tobytes()


def test_an_epoch_takes_as_many_threads_alone_as_among_others(monkeypatch):
    X, y = data(211, NET, "float32")
    one, other = (learner("numba", NET, "float32", threads=2) for _ in range(2))
    flop = (3 * one.plan.flop + ROW) * len(X) + STEP * 5
    monkeypatch.setattr(numba_plan, "START", 2 * flop)  # too little for an epoch to start a thread; three would do
    order, rates = np.tile(np.arange(211), 3), np.full((3, 5), 0.1)
    for epoch_rates in rates:
        one.epoch(Rows(X, y, order[:211]), 48, epoch_rates)
    other.epochs(Rows(X, y, order), 48, rates)
    assert one.plan.parameters.tobytes() == other.plan.parameters.tobytes()


# X as users have it.


def mapped(X, folder):
    """X in a file, mapped so that it may only be read."""
    X.tofile(folder / "X")
    return np.memmap(folder / "X", X.dtype, "r", shape=X.shape)


def read_only(X, folder):
    X = X.copy()
    X.flags.writeable = False
    return X


LAYOUTS = {
    "read-only": read_only,
    "mapped": mapped,
    "Fortran": lambda X, folder: np.asfortranarray(X),
    "strided": lambda X, folder: np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
    "reversed": lambda X, folder: X[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.mark.parametrize(
    ("layout", "content"),
    [(layout, "sparse pixels") for layout in LAYOUTS if layout != "Fortran"]
    + [(layout, "normal") for layout in ("read-only", "mapped", "Fortran")],
)
def test_rows_in_any_layout(layout, content, tmp_path):
    sizes = NET if "sparse" in content else (19, 23, 5)
    X, y = data(1100, sizes, "float32", content)
    other = LAYOUTS[layout](X, tmp_path)
    y.flags.writeable = False
    for batch in (200, 2 * LARGE):
        plain, made = (learner("numba", sizes, "float32", threads=2) for _ in range(2))
        want, got = run(plain, Rows(X, y.copy()), batch, 2), run(made, Rows(other, y), batch, 2)
        assert got[1].tobytes() == want[1].tobytes()
        assert got[0].tobytes() == want[0].tobytes()
    assert made.plan.evaluate(Rows(other, y)) == plain.plan.evaluate(Rows(X, y))
    assert made.plan.logits(other).tobytes() == plain.plan.logits(X).tobytes()


@pytest.mark.parametrize(("kind", "batch"), [(np.int32, 30), (np.int64, 30), (np.int64, 2 * LARGE)])
def test_index_arrays(kind, batch):
    X, y = data(90, (19, 23, 5), "float32")
    index = np.array([5, 5, 89, 0, *range(80, 20, -1)], kind)
    index.flags.writeable = False
    want = run(learner("numpy", (19, 23, 5), "float32"), Rows(X[index], y[index]), batch)
    made = learner("numba", (19, 23, 5), "float32", threads=2)
    assert_same_run(run(made, Rows(X, y, index), batch), want, "float32")
    if batch > LARGE:
        plain = learner("numba", (19, 23, 5), "float32", threads=2)
        run(plain, Rows(X[index], y[index]), batch)
        assert_close(made.plan.evaluate(Rows(X, y, index)), plain.plan.evaluate(Rows(X[index], y[index])), "float32")


# Ctrl-C.

PATIENCE = 0.5  # seconds from the signal to the exception


def interrupted(work, after=0.3):
    """Run `work`, send this process SIGINT meanwhile; seconds from the signal until KeyboardInterrupt came out."""
    sent = []

    def send():
        time.sleep(after)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Thread(target=send, daemon=True)
    with pytest.raises(KeyboardInterrupt):
        timer.start()
        work()
        timer.join()
        time.sleep(1)  # a signal that comes too late is not taken for the right one
        pytest.fail("the work ended before the signal was sent: make it longer")
    waited = time.perf_counter() - sent[0]
    timer.join()
    return waited


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(SIGINT) ends the process there")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [32, 2 * LARGE, 10**9], ids=["phases", "tiles", "one batch"])
def test_control_c_ends_an_epoch_at_once_and_the_next_one_works(batch, threads):
    sizes = (200, 512, 5)
    X, y = data(1000, sizes, "float32")
    made = learner("numba", sizes, "float32", threads=threads)
    small = Rows(X, y, np.arange(1000))
    epoch(made, small, batch)  # compiled now
    rows = Rows(X, y, np.tile(np.arange(1000), 8000))
    before = running()
    assert interrupted(lambda: epoch(made, rows, batch)) < PATIENCE
    left = made.plan.parameters.copy()
    time.sleep(0.05)
    assert left.tobytes() == made.plan.parameters.tobytes()  # nobody is still at work
    assert settled(before)
    want, got = learner("numba", sizes, "float32", threads=threads), learner("numba", sizes, "float32", threads=threads)
    got.plan.parameters[:] = made.plan.parameters
    want.plan.parameters[:] = made.plan.parameters
    assert np.isfinite(made.plan.parameters).all()
    assert epoch(want, small, batch) == epoch(got, small, batch)
    loss, _ = epoch(made, small, batch)
    assert np.isfinite(loss)


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(SIGINT) ends the process there")
def test_control_c_ends_many_small_steps_at_once(monkeypatch):
    """Little arithmetic is not little time: a step of one row costs more than its products."""
    monkeypatch.undo()
    sizes = (2, 2)
    X, y = data(1000, sizes, "float32")
    made = learner("numba", sizes, "float32", threads=2)
    epoch(made, Rows(X, y, np.arange(1000)), 1)  # compiled now
    rows = Rows(X, y, np.tile(np.arange(1000), 5000))
    h = made.numbers(np.zeros(len(rows)), None)  # takes long enough to be interrupted itself
    assert interrupted(lambda: made.run(rows, 1, h, made.rule), after=0.6) < PATIENCE


# Several at once: threads, processes.


def test_two_fits_at_once_give_the_bits_of_each_alone():
    X, y = data(600, NET, "float32", "sparse pixels")

    def fit(seed):
        return train(X, y, backend="numba", hidden=33, epochs=5, seed=seed, threads=2, progress=False)

    alone = [fit(seed) for seed in range(2)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(fit, range(2)))
    for one, other in zip(alone, together, strict=True):
        assert all(a.tobytes() == b.tobytes() for a, b in zip(one.weights, other.weights, strict=True))


PROCESSES = """
import hashlib
import multiprocessing
import os
import sys

import numpy as np


def fit(seed):
    from fastmlp import train

    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (400, 40), dtype=np.uint8), rng.integers(0, 5, 400)
    model = train(X, y, backend="numba", strict=True, hidden=64, epochs=3, seed=seed, threads=2, progress=False)
    return hashlib.sha256(b"".join(w.tobytes() for w in model.weights)).hexdigest()


def forked(seed):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, fit(seed).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


if __name__ == "__main__":
    if hasattr(os, "fork"):
        before = forked(0)  # nothing has been compiled in the parent
        assert before == fit(0), "fork before a fit"
        assert forked(0) == before, "fork after a fit"
        assert forked(1) == fit(1) != before
        assert fit(0) == before, "a fit after forks"
    want = [fit(0), fit(1)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(fit, (0, 1)) == want, "spawn"
    from joblib import Parallel, delayed

    assert Parallel(n_jobs=2, backend="loky")(delayed(fit)(seed) for seed in (0, 1)) == want, "loky"
    print("done")
"""


def test_fits_in_forked_and_in_spawned_processes(program, tmp_path):
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    assert program(script).strip() == "done"


def resident():
    """Bytes of memory this process holds."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_many_fits_leave_no_threads_and_no_memory_behind():
    X, y = data(2000, NET, "float32", "sparse pixels")

    def fit(seed):
        for batch in (64, "full"):
            train(X, y, backend="numba", hidden=256, epochs=1, batch_size=batch, seed=seed, threads=2, progress=False)

    for seed in range(10):
        fit(seed)
    threads, memory = running(), resident()
    for seed in range(25):
        fit(seed)
    assert settled(threads)
    assert resident() - memory < 4e6
