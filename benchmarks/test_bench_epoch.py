"""One epoch of training 784-160-10 with momentum, on pixels, as `fastmlp.train` runs it."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.bench_reference import H, I, O, epoch, mean_loss, start
from fastmlp.backends.base import Rows
from fastmlp.network import Network
from fastmlp.optimizers import OPTIMIZERS, Settings

RATE, BETA = 0.2, 0.9


class Allowed(NamedTuple):
    """Rounding, about ten times what float32 shows against float64 on 42,000 rows."""

    loss: float  # relative
    moved: float  # distance of the parameters, as a share of the way they went


ALLOWED = {"full": Allowed(1e-6, 1e-4), 128: Allowed(3e-4, 5e-3)}  # 329 steps let a difference grow


@pytest.fixture(scope="module")
def exact(data):
    """exact(batch) -> the epoch's loss, the parameters (P,) after it, and the loss under these, in float64."""
    x = data.X / 255  # (N, I) float64

    @cache
    def of(batch):
        loss, after = epoch(x, data.y, order(len(x), batch), batch, start(), RATE, BETA)
        return loss, after, mean_loss(x, data.y, after)

    return of


def order(n, batch):
    """Rows in the order of the epoch (N,): as they stand for the full batch, shuffled for smaller ones."""
    return np.arange(n) if batch == n else np.random.default_rng(5).permutation(n)


@pytest.mark.parametrize("size", ["full", 128])
def test_epoch(measure, backend, data, exact, n, size):
    """Learner.epoch; every round is the first epoch from the same start. The labels and pixels are in place."""
    batch = n if size == "full" else size
    plan = backend.plan(Network((I, H, O)), start(), None)
    learner = plan.learner(OPTIMIZERS["momentum"], Settings(beta=BETA))
    rates = np.full(-(-n // batch), RATE)  # (steps,)
    index = None if batch == n else order(n, batch)
    rows = Rows(backend.asarray(data.X), backend.asarray(data.y), index)
    begin, allowed = backend.asarray(start()), ALLOWED[size]

    def restart():
        plan.parameters[:] = begin
        learner.state[:] = 0
        learner.steps = 0

    def check(found):
        loss, after, loss_after = exact(batch)
        parameters = backend.to_host(plan.parameters)
        assert parameters.dtype == np.float32
        moved = np.linalg.norm(parameters - after) / np.linalg.norm(after - start())
        found_after = mean_loss(data.X / 255, data.y, parameters)
        assert abs(found[0] / loss - 1) <= allowed.loss, "wrong result: the loss of the epoch"
        assert abs(found_after / loss_after - 1) <= allowed.loss, "wrong result: the loss after the epoch"
        assert moved <= allowed.moved, f"wrong result: the parameters are off by {moved:.2g} of their way"

    # forward and weight gradient of both layers, and the delta of the hidden one
    gflop = 2e-9 * n * (2 * I * H + 3 * H * O)
    measure(f"epoch of {n} rows, batch {size}", backend, lambda: learner.epoch(rows, batch, rates), check,
            setup=restart, gflop=gflop)  # fmt: skip
