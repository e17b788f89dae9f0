"""Shared by the benchmarks: data, backends, and a stopwatch that refuses wrong results."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from fastmlp.backends import CLASSES, load
from fastmlp.backends.base import Backend
from fastmlp.data import read

ROWS, FEW_ROWS = 42_000, 4_000  # timed; only checked, and still more than one tile
ROUNDS, WARMUP = 7, 2
RATES = pytest.StashKey[list[str]]()  # lines for the end of the run


class Data(NamedTuple):
    """Images to learn from."""

    X: np.ndarray  # (N, 784) uint8
    y: np.ndarray  # (N,) int32


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RATES] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[RATES]:
        terminalreporter.section("rates from the medians")
        for line in config.stash[RATES]:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def n(pytestconfig: pytest.Config) -> int:
    """Rows: few where pytest-benchmark is disabled and results are only checked, as in the ordinary test run."""
    timed = pytestconfig.getoption("benchmark_enable") or not pytestconfig.getoption("benchmark_disable")
    return ROWS if timed else FEW_ROWS


@pytest.fixture(scope="session")
def data(n: int) -> Data:
    """The first n training rows of MNIST, from the folder named by FASTMLP_MNIST, or of the built-in digits."""
    dataset = read(os.environ.get("FASTMLP_MNIST"))
    assert dataset.y is not None
    return Data(dataset.X[:n], dataset.y[:n].astype(np.int32))


# For benchmarks of single operations: those of cupy work in a plan's own arrays, and benchmarks/gpu_peers.py has them.
with_operations = pytest.mark.parametrize("backend", [name for name in CLASSES if name != "cupy"], indirect=True)


@pytest.fixture(params=CLASSES)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend in turn; one that cannot be used here is skipped with the reason."""
    found = load(request.param)
    if isinstance(found, str):
        pytest.skip(f"backend {request.param} is not usable: {found}")
    return found


@pytest.fixture
def measure(benchmark: Any, pytestconfig: pytest.Config) -> Callable[..., None]:
    """measure(group, backend, run, check): time `run`, then `check` what its last round left behind.

    Parameters
    ----------
    group
        The table to appear in; what is compared there does the same work.
    backend
        Its BLAS or device and its threads go into the record.
    run
        What is timed. On a GPU it must wait for the result: everything is queued in one stream, so a copy of
        any part of the result waits for all of it.
    check
        Called with the last value of `run`; an AssertionError fails the benchmark and marks its row WRONG.
    setup
        Called before each round, outside the timing.
    gflop, gbyte
        The work of one run, or the least memory it must read and write: gives the rate.
    alone
        An operation called by itself, which numba runs on the calling thread; its team works on whole epochs.
    rounds, iterations
        As in pytest-benchmark.
    """

    def measure(
        group: str, backend: Backend, run: Callable[[], Any], check: Callable[[Any], None], *,
        setup: Callable[[], None] | None = None, gflop: float = 0, gbyte: float = 0,
        alone: bool = False, rounds: int = ROUNDS, iterations: int = 1,
    ) -> None:  # fmt: skip
        benchmark.group = group
        facts = backend.describe(1 if alone and backend.name == "numba" else None)
        benchmark.extra_info.update(backend=backend.name, **facts)
        result = benchmark.pedantic(run, setup=setup, rounds=rounds, warmup_rounds=WARMUP, iterations=iterations)
        try:
            check(result)
        except AssertionError:
            benchmark.has_error = True  # keeps it out of the JSON
            if not benchmark.disabled:
                benchmark.stats.name += " WRONG"  # in the table
            raise
        if benchmark.disabled:
            return
        median = benchmark.stats.stats.median
        where = f"{facts.get('device') or facts['blas']}, threads: {facts['threads']}"
        for unit, amount in (("GFLOP/s", gflop), ("GB/s", gbyte)):
            if amount:
                benchmark.extra_info[unit] = amount / median
                pytestconfig.stash[RATES].append(f"{group}: {benchmark.name}: {amount / median:.1f} {unit} ({where})")

    return measure
