"""Compiled epochs of every activation, loss and option against the generic learner over NumPy.

An epoch is compiled anew for each depth, type of numbers and kind of rows, but not for an activation, a loss or a rule,
which it calls by address: the cases share three kinds of rows at one depth, and one of several layers.
"""

import numpy as np
import pytest
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp import backends
from fastmlp.activations import ACTIVATIONS
from fastmlp.backends import numba_learner, numba_plan, numba_ways
from fastmlp.backends.base import Rows
from fastmlp.backends.numba_ways import LARGE
from fastmlp.losses import ELEMENTWISE
from fastmlp.network import Network, initialise
from fastmlp.optimizers import OPTIMIZERS, Settings, find

BATCH = {"phases": 48, "tiles": LARGE + 7, "small tiles": 48}  # the last: small batches of a small network
ROWS = {"phases": 299, "tiles": 2 * LARGE + 99, "small tiles": 299}  # the last batch is smaller
REAL = np.dtype("float32")


@pytest.fixture(autouse=True)
def threads_at_any_size(monkeypatch, request):
    """Small work, too, is split over the threads asked for."""
    monkeypatch.setattr(numba_learner, "ALONE", 0)
    if request.node.callspec.params.get("way") != "small tiles":
        monkeypatch.setattr(numba_ways, "SMALL", 0)
        monkeypatch.setattr(numba_ways, "FEW", 0)
    monkeypatch.setattr(numba_plan, "START", 0)


def rows_of(kind, sizes, loss):
    """`kind` is "classes": dense rows, a class each; "targets": dense rows in an order of their own, with targets and
    weights; "pixels": sparse uint8 rows in an order of their own, a class each.
    """
    way, kind = kind
    n, rng = ROWS[way], np.random.default_rng(0)
    X, weight = rng.standard_normal((n, sizes[0])).astype(REAL), rng.uniform(0, 2, n).astype(REAL)
    y = rng.integers(0, sizes[-1], n).astype(np.int32)
    if kind == "classes":
        return Rows(X, y)
    if kind == "targets":
        Y = rng.random((n, sizes[-1])) if loss == "logistic" else rng.poisson(1.0, (n, sizes[-1]))
        return Rows(X, Y.astype(REAL), rng.permutation(n), weight)
    X = rng.integers(0, 256, (n, sizes[0]), dtype=np.uint8)
    X[rng.random(X.shape) < 0.9] = 0
    return Rows(X, y, rng.permutation(n))


def check(way, kind, network, rule="momentum", rate=0.05, l2=0.0, **settings):
    """Two epochs, and what they end in, are the generic learner's, for any team."""
    rows, batch = rows_of((way, kind), network.sizes, network.loss), BATCH[way]
    steps = -(-len(rows) // batch)
    rates = rate * np.linspace(1, 0.3, 2 * steps).reshape(2, steps)  # another a step
    penalties = np.linspace(l2, l2 / 2, steps) if l2 else None
    parameters = initialise(network.sizes, np.random.default_rng(3), REAL)

    def run(name, threads):
        made = backends.load(name).plan(network, parameters.copy(), threads).learner(find(rule), Settings(**settings))
        seen = [made.epoch(rows, batch, rates[epoch], penalties) for epoch in range(2)]
        return seen, made.plan.parameters, made.plan.evaluate(rows), made.state

    want = run("numpy", 1)
    for threads in (1, 2, 5) if way == "phases" else (1, 3):
        for got, expected in zip(run("numba", threads), want, strict=True):
            assert_close(got, expected, REAL, "run")
    return want


@pytest.mark.parametrize(
    ("sizes", "n", "threads", "tiles"),
    [
        ((784, 160, 10), 128, 2, False),
        ((784, 160, 10), 512, 2, False),
        ((784, 10), 128, 2, True),  # no units to share
        ((16, 100, 26), 2, 1, True),  # few parameters
        ((20, 200, 100), 200, 2, True),
        ((20, 200, 100), 200, 16, False),
        ((784, 512, 512, 10), 256, 2, False),
        ((784, 512, 512, 10), LARGE + 1, 64, True),
    ],
)
def test_who_hands_over_least_decides(monkeypatch, sizes, n, threads, tiles):
    monkeypatch.undo()
    assert numba_ways.in_tiles(sizes, n, threads, 0.0) == tiles


WAYS = pytest.mark.parametrize("way", BATCH)
ONE, DEEP = (19, 23, 5), (19, 50, 9, 4)


@WAYS
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation(way, activation):
    check(way, "classes", Network(ONE, activation))


@WAYS
@pytest.mark.parametrize("activations", [("gelu", "tanh"), ("relu", "silu"), ("elu", "identity")], ids=str)
def test_one_activation_a_layer(way, activations):
    check(way, "classes", Network(DEEP, activations, dropout=0.2), l2=0.01)


@WAYS
@pytest.mark.parametrize("loss", ELEMENTWISE)
def test_every_loss_of_elements_with_weights(way, loss):
    numbers = {"huber": (0.5, 1, 2, 1, 0.1), "quantile": (0.1, 0.3, 0.5, 0.7, 0.9), "logistic": (2.0,) * 5}
    check(way, "targets", Network(ONE, "tanh", loss, numbers.get(loss, ())), rate=0.02)


@WAYS
@pytest.mark.parametrize("numbers", [(0.1, 0, 0), (0, 2, 0), (0, 0, 1.5)], ids=["smoothed", "focal", "ceiling"])
def test_numbers_of_cross_entropy(way, numbers):
    check(way, "classes", Network(ONE, numbers=numbers))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_pixels_whose_zeros_are_skipped(dropout):
    network = Network((70, 33, 7), "leaky_relu", dropout=dropout)
    assert numba_plan.NumbaPlan(network, np.zeros(70 * 33 + 33 + 33 * 7 + 7, REAL), 1).skips(
        rows_of(("phases", "pixels"), network.sizes, "").X
    )
    check("phases", "pixels", network)


@WAYS
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_penalty_of_the_weights_and_not_of_the_biases(way, rule):
    rate = 0.01 if rule.startswith(("adam", "heavy")) else 0.1
    seen, *_ = check(way, "classes", Network(ONE), rule, rate, l2=0.05)
    assert all(totals.penalty > 0.01 for totals in seen)


@WAYS
def test_weight_decay_and_all_numbers_of_adamw(way):
    check(way, "classes", Network(ONE), "adamw", 0.05, weight_decay=0.3, beta=0.8, beta2=0.9, epsilon=1e-3)
    check(way, "classes", Network(ONE), "adamw", 0.05, l2=0.02, weight_decay=0.3)


@WAYS
def test_clip(way):
    ends = [check(way, "classes", Network(ONE), "sgd", 0.5, clip=clip)[1] for clip in (0.0, 1e3, 0.05)]
    assert_close(ends[1], ends[0], REAL, "run")  # none is as long
    assert np.abs(ends[2] - ends[0]).max() > 0.01
    check(way, "classes", Network(ONE), "momentum", 0.5, clip=0.05, l2=0.01)


@WAYS
def test_dropout_with_all_else(way):
    check(way, "targets", Network(ONE, "gelu", "squared_error", dropout=0.4), "adamw", 0.01, l2=0.01, seed=2**31,
          weight_decay=0.1)  # fmt: skip
    check("phases", "classes", Network(ONE, dropout=0.4), "momentum", clip=0.1)
