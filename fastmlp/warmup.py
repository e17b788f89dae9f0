"""Compiling ahead of time: into the cache, so that the first training starts at once."""

from __future__ import annotations

import itertools
import time

import numpy as np

from fastmlp.backends import parameter_type, select
from fastmlp.backends.base import Rows
from fastmlp.network import Network, initialise
from fastmlp.optimizers import Settings, find
from fastmlp.values import check_threads

ROWS = 2048  # enough that both loops are compiled: that over batches of a few rows, and that over tiles of a large one
BATCHES = (1, ROWS)  # a small network, of `numba_ways.FEW` parameters, passes in tiles either way


def warmup(
    sizes: tuple[int, ...] = (784, 160, 10), *, backend: str = "auto", precision: str = "float32", pixels: bool = False,
    optimizer: str = "momentum", threads: int | None = None,
) -> float:  # fmt: skip
    """Compile what training and prediction need, or load it from the compile cache.

    The numba backend compiles each kind of work once: a number of layers, a type of rows, with and without skipped
    zeros. Later runs, in this process and in others of the same install, find it done.

    Parameters
    ----------
    sizes
        Units of each layer, inputs first, outputs last. How many there are matters, not how large they are, but for
        zeros, which are looked for from 64 inputs on, and networks of up to 8,192 parameters, which need less.
    backend, precision, optimizer, threads
        As in `fastmlp.train`.
    pixels
        For rows of uint8; else of the precision's own type.

    Returns
    -------
    float
        Seconds it took.

    Raises
    ------
    OptionError
        An option has an impossible value.

    Examples
    --------
    >>> warmup((4, 8, 3), backend="numpy") < 60
    True
    """
    started = time.perf_counter()
    check_threads(threads)
    compute = select(backend).backend
    dtype = parameter_type(compute, precision)
    network, rule = Network(tuple(sizes)), find(optimizer)
    start = initialise(network.sizes, np.random.default_rng(0), dtype)
    plan = compute.plan(network, start, threads, precision)
    learner = plan.learner(rule, Settings())
    kind = np.dtype(np.uint8) if pixels else dtype
    y = compute.asarray(np.zeros(ROWS, np.int32))  # (N,)
    orders = (np.arange(ROWS), None)  # shuffled, and as they stand
    with compute.limit_threads(threads):
        for X in (np.ones((ROWS, sizes[0]), kind), np.zeros((ROWS, sizes[0]), kind)):  # (N, I), dense and sparse
            for batch, order in itertools.product(BATCHES, orders):
                rows = Rows(compute.asarray(X), y, order)
                learner.prepare(rows, batch)
            plan.evaluate(Rows(compute.asarray(X), y))
            plan.probabilities(X)
    return time.perf_counter() - started
