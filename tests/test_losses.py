"""Every loss and its slope, on every CPU backend: the oracle's numbers, extremes, weights, in place and beside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle_elements import LOSSES, cross_entropy, loss_of_rows
from tolerance import assert_close, tolerance

from fastmlp import OptionError, losses
from fastmlp.network import Network

SHAPES = [(1, 1), (7, 1), (5, 3), (40, 4)]
NUMBERS = {"huber": (0.5, 1.0, 2.0, 0.1), "quantile": (0.1, 0.5, 0.9, 0.3), "logistic": (0.0, 2.0, 0.1, 0.0)}


def test_the_oracle_knows_them_all():
    assert {"cross_entropy", *LOSSES} == set(losses.NAMES)


@pytest.fixture(params=list(losses.ELEMENTWISE))
def name(request):
    return request.param


def problem(name, dtype, shape, seed=0):
    """z, y (N, O), numbers (O,), weight (N,)."""
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, 2, shape), rng.normal(0, 2, shape)
    if name == "logistic":
        y = rng.integers(0, 2, shape) * 1.0
        y[0] = 0.3  # any share will do
    if name == "poisson":
        y = rng.poisson(1.5, shape) * 1.0
        y[0] = 0
    z, y = z.astype(dtype), y.astype(dtype)
    if name not in ("logistic", "poisson"):
        z[0, 0] = y[0, 0]  # right on the spot
    numbers = np.array(NUMBERS.get(name, (0.0,) * 4)[: shape[1]], dtype)
    return z, y, numbers, rng.uniform(0, 3, shape[0]).astype(dtype)


def run(backend, name, z, y, numbers, weight, scale=1.0, dz=None):
    """[sum of losses, right answers] and dz, by the operation."""
    dz, totals = np.full_like(z, np.nan) if dz is None else dz, np.array([10.0, 20.0])
    backend.ops.elementwise_loss(losses.kind_of(name), z, y, scale, dz, totals, weight, numbers)
    return totals - [10, 20], dz


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_loss_and_slope_are_the_oracles(backend, dtype, name, shape, weighted):
    z, y, numbers, weight = problem(name, dtype, shape)
    weight = weight if weighted else None
    kept = z.copy(), y.copy()
    totals, dz = run(backend, name, z, y, numbers, weight, 0.25)
    want, slope = loss_of_rows(name, z, y, tuple(numbers))
    factor = np.ones(shape[0]) if weight is None else weight.astype(np.float64)
    assert_close(totals[0], (want * factor).sum(), dtype)
    assert_close(dz, slope * factor[:, None] * 0.25, dtype)
    assert totals[1] == np.sum(((z > 0) == (y > 0.5)).all(axis=1))
    assert dz.dtype == dtype
    for got, before in zip((z, y), kept, strict=True):
        np.testing.assert_array_equal(got, before)
    beside = dz.copy()
    again, over = run(backend, name, z, y, numbers, weight, 0.25, dz=z)
    assert over is z
    assert over.tobytes() == beside.tobytes()
    assert again.tolist() == totals.tolist()


def central_difference(loss, z, i, step=1e-6):
    """The slope of loss(z) along element i."""
    ends = []
    for sign in (1, -1):
        moved = z.copy()
        moved[i] += sign * step
        ends.append(loss(moved))
    return (ends[0] - ends[1]) / (2 * step)


def test_the_slope_is_a_central_difference(backend, name):
    z, y, numbers, _ = problem(name, np.float64, (40, 4))
    numbers = np.zeros(4) if name == "logistic" else numbers  # a ceiling leaves the slope alone
    z[0, 0] += 0.1  # off the kink
    _, dz = run(backend, name, z, y, numbers, None)
    for i in [(0, 0), (0, 3), (5, 1), (17, 2), (39, 3)]:
        slope = central_difference(lambda moved: run(backend, name, moved, y, numbers, None)[0][0], z, i)
        assert dz[i] == pytest.approx(slope, rel=1e-5, abs=1e-7)


FAR = {  # name: y, then loss and slope at z = -1e4 and at z = 1e4
    "logistic": (1, [(1e4, -1), (0, 0)]),
    "squared_error": (0, [(5e7, -1e4), (5e7, 1e4)]),
    "poisson": (2, [(2e4 + 2 * np.log(2) - 2, -2), None]),  # exp(1e4) is infinite
    "absolute_error": (0, [(1e4, -1), (1e4, 1)]),
    "huber": (0, [(0.5 * (1e4 - 0.25), -0.5), (0.5 * (1e4 - 0.25), 0.5)]),
    "quantile": (0, [(1e3, -0.1), (9e3, 0.9)]),
}


def test_extremes_neither_overflow_nor_warn(backend, dtype, name):
    y, ends = FAR[name]
    numbers = np.array([NUMBERS.get(name, (0.0,))[0]], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for z, want in zip((-1e4, 1e4), ends, strict=True):
            if want is None:
                continue
            totals, dz = run(backend, name, np.array([[z]], dtype), np.array([[y]], dtype), numbers, None)
            assert_close(totals[0], want[0], dtype)
            assert_close(dz[0, 0], want[1], dtype)


def test_a_nan_makes_the_loss_nan(backend, dtype, name):
    z, y, numbers, _ = problem(name, dtype, (5, 3))
    z[2, 1] = np.nan
    totals, dz = run(backend, name, z, y, numbers, None)
    assert np.isnan(totals[0])
    assert np.isnan(dz[2, 1])
    assert np.isfinite(np.delete(dz.ravel(), 2 * 3 + 1)).all()


def test_a_huge_mean_is_infinite_and_not_a_wrong_number(backend, dtype):
    with np.errstate(over="ignore"):
        totals, dz = run(backend, "poisson", np.array([[1e4]], dtype), np.ones((1, 1), dtype), np.zeros(1, dtype), None)
    assert totals[0] == dz[0, 0] == np.inf


# Cross entropy with numbers and weights.

CROSS = {
    "plain": (0, 0, 0),
    "smoothed": (0.2, 0, 0),
    "all smooth": (1, 0, 0),
    "focal": (0, 2, 0),
    "weakly focal": (0, 0.5, 0),
    "ceiling": (0, 0, 1.5),
}


def run_cross(backend, z, y, numbers, weight=None, dz=None):
    dz, totals = np.full_like(z, np.nan) if dz is None else dz, np.zeros(2)
    backend.ops.softmax_cross_entropy(z, y, 0.5, dz, totals, weight, np.array(numbers, z.dtype))
    return totals, dz


@pytest.mark.parametrize("numbers", CROSS.values(), ids=CROSS)
@given(st.integers(1, 40), st.integers(2, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_cross_entropy_is_the_oracles(backend, dtype, numbers, n, o, weighted, seed):
    rng = np.random.default_rng(seed)
    z, y = rng.normal(0, 2, (n, o)).astype(dtype), rng.integers(0, o, n).astype(np.int32)
    weight = rng.uniform(0, 3, n).astype(dtype) if weighted else None
    want, slope = cross_entropy(z, y, np.array(numbers, dtype))
    factor = np.ones(n) if weight is None else weight.astype(np.float64)
    totals, dz = run_cross(backend, z, y, numbers, weight)
    assert_close(totals[0], (want * factor).sum(), dtype)
    assert_close(dz, 0.5 * slope * factor[:, None], dtype)
    assert totals[1] == np.sum(z.argmax(axis=1) == y)
    beside = dz.copy()
    assert run_cross(backend, z, y, numbers, weight, dz=z)[0].tolist() == totals.tolist()
    assert z.tobytes() == beside.tobytes()


@pytest.mark.parametrize("name", ["plain", "smoothed", "focal", "weakly focal"])
def test_its_slope_is_a_central_difference(backend, name):
    rng = np.random.default_rng(1)
    z, y = rng.normal(0, 2, (6, 4)), rng.integers(0, 4, 6).astype(np.int32)
    weight = rng.uniform(0.5, 2, 6)
    _, dz = run_cross(backend, z, y, CROSS[name], weight)
    for i in np.ndindex(z.shape):
        slope = central_difference(lambda moved: run_cross(backend, moved, y, CROSS[name], weight)[0][0], z, i)
        assert dz[i] == pytest.approx(0.5 * slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("numbers", CROSS.values(), ids=CROSS)
def test_huge_logits(backend, dtype, numbers):
    z, y = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0]], dtype), np.array([0, 0], np.int32)
    want, slope = cross_entropy(z, y, numbers) if not numbers[1] else ([0, 2e4], [[0, 0, 0], [-1, 1, 0]])
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        totals, dz = run_cross(backend, z, y, numbers)
    assert_close(totals[0], np.sum(want), dtype)
    assert_close(dz, 0.5 * np.array(slope), dtype)


# Names and numbers.


def test_a_network_counts_its_loss_and_brings_its_numbers(dtype):
    assert Network((3, 2)).loss_kind == losses.SOFTMAX == 0
    assert Network((3, 2), loss="huber").loss_kind == losses.kind_of("huber") == 5
    for net, want in (
        (Network((3, 5)), [0, 0, 0]),
        (Network((3, 5), loss="squared_error"), [0] * 5),
        (Network((3, 2), loss="huber", numbers=(1.0, 2.0)), [1, 2]),
    ):
        got = net.loss_numbers(dtype)
        assert got.tolist() == want
        assert got.dtype == dtype


@pytest.mark.parametrize("wrong", ["hinge", None, 0, ["huber"]], ids=str)
def test_an_unknown_loss_is_refused(wrong):
    with pytest.raises(OptionError, match="loss: expected one of cross_entropy, logistic"):
        _ = Network((3, 2), loss=wrong).loss_kind


def test_the_oracle_agrees_with_central_differences():
    for name in ("cross_entropy", *LOSSES):
        z, y, numbers, _ = problem(name, np.float64, (6, 3))
        y = np.arange(6) % 3 if name == "cross_entropy" else y
        given = (0.1, 0, 0) if name == "cross_entropy" else tuple(numbers) if name != "logistic" else (0.0,)
        z = z + 0.05
        up, down = (loss_of_rows(name, z + s * 1e-6 * (np.arange(3) == 1), y, given)[0] for s in (1, -1))
        slope = loss_of_rows(name, z, y, given)[1][:, 1]
        np.testing.assert_allclose(slope, (up - down) / 2e-6, rtol=tolerance("gradient", "float64")[0], atol=1e-8)


def test_as_many_numbers_as_the_loss_takes():
    network = Network((3, 2), loss="quantile", numbers=(0.1, 0.9))
    assert network.loss_numbers(np.dtype(np.float64)).tolist() == [0.1, 0.9]
    with pytest.raises(OptionError, match=r"numbers: the loss 'quantile' takes 2 here; got \(0\.5,\)"):
        Network((3, 2), loss="quantile", numbers=(0.5,)).loss_numbers(np.dtype(np.float64))
