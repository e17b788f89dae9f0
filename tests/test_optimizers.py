"""The update rules against the oracle, through every backend's update."""

import numpy as np
import oracle
import pytest
from tolerance import assert_close

from fastmlp import OptionError
from fastmlp.optimizers import OPTIMIZERS, Settings, Step, find, step_scalars, step_table

RULES = sorted(OPTIMIZERS)
P = 16384 * 2 + 5  # more parameters than one chunk


def walk(backend, rule, dtype, steps, rate, beta, p=P):
    """Parameters and state after `steps`, and the oracle's."""
    found = find(rule)
    rng = np.random.default_rng(5)
    w = rng.standard_normal(p).astype(dtype)
    state = np.zeros((found.states, p), dtype)
    want, kept = w.astype(np.float64), []
    for t in range(1, steps + 1):
        g = rng.standard_normal(p).astype(dtype)
        backend.ops.update(
            found.rule, w, g, state, step_scalars(found.rule, rate, Settings(beta=beta), t, np.dtype(dtype))
        )
        want, kept = oracle.step(rule, want, g.astype(np.float64), kept, t, rate, beta)
    return w, state, want, kept


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_four_steps_are_the_oracles(backend, dtype, rule, beta):
    w, state, want, kept = walk(backend, rule, dtype, 4, 0.1, beta)
    assert w.dtype == state.dtype == dtype
    assert_close(w, want, dtype)
    for got, expected in zip(state, kept, strict=True):
        assert_close(got, expected, dtype)


@pytest.mark.parametrize("rule", RULES)
def test_one_parameter(backend, dtype, rule):
    w, _, want, _ = walk(backend, rule, dtype, 3, 0.1, 0.9, p=1)
    assert_close(w, want, dtype)


@pytest.mark.parametrize("rule", RULES)
def test_the_gradient_is_only_read(backend, rule):
    found, g = find(rule), np.array([1.0, -2.0, 0.0])
    h = step_scalars(found.rule, 0.1, Settings(beta=0.9), 1, np.dtype("float64"))
    backend.ops.update(found.rule, np.zeros(3), g, np.zeros((found.states, 3)), h)
    assert g.tolist() == [1.0, -2.0, 0.0]


@pytest.mark.parametrize("rule", ["momentum", "nesterov"])
def test_without_beta_it_is_gradient_descent(backend, dtype, rule):
    plain = walk(backend, "sgd", dtype, 5, 0.3, 0.9)[0]
    np.testing.assert_array_equal(walk(backend, rule, dtype, 5, 0.3, 0.0)[0], plain)


def test_momentum_worked_by_hand(backend):
    # v0 = 0, w0 = 1, beta 0.5, rate 0.5. g = 2: v1 = 1, w1 = 1 - 0.5 = 0.5. g = 4: v2 = 0.5 + 2 = 2.5, w2 = -0.75.
    found, w, v = find("momentum"), np.array([1.0]), np.zeros((1, 1))
    for t, (g, velocity, weight) in enumerate([(2.0, 1.0, 0.5), (4.0, 2.5, -0.75)], 1):
        backend.ops.update(
            found.rule, w, np.array([g]), v, step_scalars(found.rule, 0.5, Settings(beta=0.5), t, np.dtype("float64"))
        )
        assert (v[0, 0], w[0]) == (velocity, weight)


def test_nesterov_worked_by_hand(backend):
    # v0 = 0, w0 = 1, beta 0.5, rate 0.5. g = 2: v1 = 1, w1 = 1 - 0.5 (0.5 * 1 + 0.5 * 2) = 0.25.
    found, w = find("nesterov"), np.array([1.0])
    h = step_scalars(found.rule, 0.5, Settings(beta=0.5), 1, np.dtype("float64"))
    backend.ops.update(found.rule, w, np.array([2.0]), np.zeros((1, 1)), h)
    assert w[0] == 0.25


def test_the_first_step_of_adam_is_the_rate_whatever_the_gradient(backend):
    # m = 0.1 g, q = 0.001 g^2; corrected rate = rate sqrt(0.001) / 0.1: the step is rate * sign(g).
    found, w = find("adam"), np.zeros(3)
    h = step_scalars(found.rule, 0.01, Settings(beta=0.9), 1, np.dtype("float64"))
    backend.ops.update(found.rule, w, np.array([5.0, -0.3, 1000.0]), np.zeros((2, 3)), h)
    np.testing.assert_allclose(w, [-0.01, 0.01, -0.01], rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
def test_the_numbers_of_a_step_have_the_parameters_type(dtype, rule):
    h = step_scalars(find(rule).rule, 0.1, Settings(beta=0.9), 3, dtype)
    assert isinstance(h, Step)
    assert {number.dtype for number in h} == {dtype}
    assert float(h.rest) == pytest.approx(0.1)


def test_an_unknown_name_is_refused_with_the_list():
    with pytest.raises(
        OptionError, match=r"optimizer: expected one of sgd, momentum, nesterov, adam, .*; got 'rmsprop'"
    ):
        find("rmsprop")


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_table_has_the_numbers_of_each_step(rule, dtype):
    found, settings, dtype = find(rule).rule, Settings(beta=0.8, weight_decay=0.3), np.dtype(dtype)
    rates, l2 = np.linspace(0.1, 0.01, 7), np.linspace(0, 0.2, 7)
    table = step_table(found, rates, settings, 5, dtype, l2)
    assert table.dtype == dtype
    for t in range(7):
        want = step_scalars(found, rates[t], settings, 5 + t, dtype, l2[t])
        np.testing.assert_allclose(table[t], want, rtol=1000 * np.finfo(dtype).eps)  # 1 - beta^t cancels
