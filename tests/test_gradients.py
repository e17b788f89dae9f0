"""Whole nets: the gradient of every loss through every activation at several depths, against central differences."""

from itertools import pairwise

import numpy as np
import oracle
import pytest
from oracle_elements import LOSSES
from tolerance import assert_close, tolerance

from fastmlp.activations import ACTIVATIONS
from fastmlp.backends.base import Rows
from fastmlp.backends.plan import OpsPlan
from fastmlp.network import Network, layer_views, parameter_count
from fastmlp.optimizers import Settings, find

NAMES = list(ACTIVATIONS)
DEPTHS = [(4, 3), (4, 5, 3), (4, 5, 4, 3), (4, 3, 5, 4, 3)]
NUMBERS = {"huber": (0.5, 1.0, 0.2), "quantile": (0.1, 0.5, 0.9)}
CASES = [
    ("cross_entropy", ()), ("cross_entropy", (0.1, 0.0, 0.0)), ("cross_entropy", (0.0, 2.0, 0.0)),
    *((name, NUMBERS.get(name, ())) for name in LOSSES),
]  # fmt: skip


def problem(sizes, loss, n=6):
    """x, y, weight, W, b."""
    rng = np.random.default_rng(len(sizes))
    W = [0.6 * rng.standard_normal(shape) for shape in pairwise(sizes)]  # moderate sums, for the formulas of the oracle
    b = [rng.standard_normal(units) for units in sizes[1:]]
    y = rng.integers(0, sizes[-1], n).astype(np.int32)
    if loss != "cross_entropy":
        y = rng.random((n, sizes[-1])) if loss == "logistic" else rng.poisson(1.0, (n, sizes[-1])) * 1.0
    return rng.standard_normal((n, sizes[0])), y, rng.uniform(0.5, 2, n), W, b


def flat(W, b):
    """All parameters (P,), in the order of `layer_views`."""
    return np.concatenate([part.ravel() for pair in zip(W, b, strict=True) for part in pair])


def in_turn(first, hidden):
    """An activation for each hidden layer, another each."""
    return tuple(NAMES[(first + l) % len(NAMES)] for l in range(hidden))


def check(learner, rows, want_loss, want):
    """The learner's gradient is that of the differences, and nothing moved."""
    before = learner.plan.parameters.copy()
    loss, got = learner.gradient(rows)
    assert loss == pytest.approx(want_loss, rel=1e-12)
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance("gradient", "float64")[0] * np.abs(want).max())
    np.testing.assert_array_equal(learner.plan.parameters, before)
    assert learner.steps == 0


@pytest.mark.parametrize("sizes", DEPTHS, ids=str)
@pytest.mark.parametrize(("loss", "numbers"), CASES, ids=str)
def test_gradients_are_central_differences(backend, sizes, loss, numbers):
    x, y, weight, W, b = problem(sizes, loss)
    for first in range(len(NAMES) if len(sizes) > 2 else 1):
        names = in_turn(first, len(sizes) - 2)
        net = oracle.Net(names, loss, numbers)
        want = flat(*oracle.differences(x, y, W, b, net=net, weight=weight))
        plan = OpsPlan(backend, Network(sizes, names, loss, numbers), flat(W, b))
        for tile_rows in (100, 4):
            plan.tile_rows = tile_rows
            learner = plan.learner(find("sgd"), Settings())
            check(learner, Rows(x, y, weight=weight), oracle.loss(x, y, W, b, net, weight), want)


def test_the_oracle_agrees_with_central_differences():
    for (loss, numbers), sizes in zip(CASES, DEPTHS * 3, strict=False):
        x, y, weight, W, b = problem(sizes, loss)
        net = oracle.Net(in_turn(1, len(sizes) - 2), loss, numbers)
        want = flat(*oracle.differences(x, y, W, b, net=net, weight=weight))
        got = flat(*oracle.gradients(x, y, W, b, net=net, weight=weight))
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(("loss", "numbers"), CASES, ids=str)
def test_compiled_gradients_are_the_oracles(loss, numbers):
    """The numba backend's own plan, on several threads, at one depth: what it runs is compiled for each depth."""
    pytest.importorskip("numba")
    from fastmlp.backends import load

    x, y, weight, W, b = problem((4, 5, 3), loss, n=300)
    weight = None if loss == "cross_entropy" else weight
    for first, activation in enumerate(NAMES):
        network = Network((4, 5, 3), activation, loss, numbers)
        learner = load("numba").plan(network, flat(W, b), 1 + first % 3).learner(find("sgd"), Settings())
        net = oracle.Net(activation, loss, numbers)
        value, gradient = learner.gradient(Rows(x, y, weight=weight))
        assert_close(value, oracle.loss(x, y, W, b, net, 1.0 if weight is None else weight), np.float64)
        assert_close(gradient, flat(*oracle.gradients(x, y, W, b, net=net, weight=weight)), np.float64)
        assert_close(learner.plan.evaluate(Rows(x, y, weight=weight))[0], value, np.float64)


def test_a_gradient_of_rows_picked_by_an_index(backend, dtype):
    x, y, _, W, b = problem((4, 5, 3), "cross_entropy", n=30)
    index = np.array([3, 3, 29, 0, 7])
    learner = OpsPlan(backend, Network((4, 5, 3)), flat(W, b).astype(dtype)).learner(find("adam"), Settings())
    value, gradient = learner.gradient(Rows(x.astype(dtype), y, index))
    assert_close(value, oracle.loss(x[index], y[index], W, b), dtype)
    assert_close(gradient, flat(*oracle.gradients(x[index], y[index], W, b)), dtype)
    assert gradient.dtype == dtype
    assert len(gradient) == parameter_count((4, 5, 3))
    dW, _ = layer_views(gradient, (4, 5, 3))
    assert dW[0].shape == (4, 5)
