"""Every activation and its slope, on every CPU backend: the oracle's numbers, extremes, in place and beside."""

import numpy as np
import pytest
from oracle_elements import ACTIVATIONS as WANT
from tolerance import assert_close, tolerance

from fastmlp import OptionError, activations
from fastmlp.activations import ACTIVATIONS
from fastmlp.network import Network

NAMES = list(ACTIVATIONS)
INF = np.inf


def test_the_oracle_knows_them_all():
    assert set(WANT) == set(NAMES)


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def f(backend, name, z):
    """f(z) of numbers z (n,), by the operation."""
    z = z.reshape(1, -1)
    a = np.full_like(z, 7)
    backend.ops.activate(activations.kind_of(name), z, a)
    return a[0]


def slope(backend, name, z):
    """f'(z) of numbers z (n,): what 1 becomes on its way back through the unit."""
    a, one, out = f(backend, name, z)[None], np.ones((1, 1), z.dtype), np.full((1, len(z)), 7, z.dtype)
    backend.ops.backprop(activations.kind_of(name), one, np.ones((len(z), 1), z.dtype), z[None], a, out)
    return out[0]


def numbers(dtype):
    """Numbers of usual sizes, dense around 0 and where float32's tanh changes its formula, without 0 itself."""
    rng = np.random.default_rng(2)
    return np.concatenate([
        rng.uniform(-12, 12, 400), rng.normal(0, 0.5, 400), *np.outer([-1, 1], np.geomspace(1e-6, 0.4, 100)),
    ]).astype(dtype)  # fmt: skip


def test_f_and_slope_are_the_oracles(backend, dtype, name):
    z = numbers(dtype)
    exact = z.astype(np.float64)
    for got, want in ((f(backend, name, z), WANT[name][0](exact)), (slope(backend, name, z), WANT[name][1](exact))):
        assert got.dtype == dtype
        assert_close(got, want, dtype)


def test_the_slope_is_a_central_difference(backend, name):
    z = numbers(np.float64)
    z = z[np.abs(z) > 1e-4]  # not over the kink of those that have one
    step = 1e-5
    want = (f(backend, name, z + step) - f(backend, name, z - step)) / (2 * step)
    np.testing.assert_allclose(slope(backend, name, z), want, rtol=tolerance("gradient", "float64")[0], atol=1e-9)


EXTREMES = {  # at -inf, -1e4, 1e4, inf: f, then slope; None is not promised
    "identity": ([-INF, -1e4, 1e4, INF], [1, 1, 1, 1]),
    "relu": ([0, 0, 1e4, INF], [0, 0, 1, 1]),
    "logistic": ([0, 0, 1, 1], [0, 0, 0, 0]),
    "tanh": ([-1, -1, 1, 1], [0, 0, 0, 0]),
    "leaky_relu": ([-INF, -100, 1e4, INF], [0.01, 0.01, 1, 1]),
    "elu": ([-1, -1, 1e4, INF], [0, 0, 1, 1]),
    "gelu": ([None, 0, 1e4, INF], [None, 0, 1, None]),
    "silu": ([None, 0, 1e4, INF], [None, 0, 1, None]),
}


def test_extremes(backend, dtype, name):
    z = np.array([-INF, -1e4, 1e4, INF], dtype)
    with np.errstate(over="raise", divide="raise", invalid="ignore"):
        for got, want in zip((f(backend, name, z), slope(backend, name, z)), EXTREMES[name], strict=True):
            promised = [i for i in range(4) if want[i] is not None]
            assert_close(got[promised], np.array(want, dtype)[promised], dtype)


def test_a_nan_stays_one(backend, dtype, name):
    assert np.isnan(f(backend, name, np.array([np.nan, np.nan], dtype))).all()
    got = f(backend, name, np.array([1, np.nan, -1], dtype))
    assert np.isnan(got).tolist() == [False, True, False]


def test_numbers_next_to_0(backend, dtype, name):
    tiny = np.finfo(dtype)
    z = np.array([tiny.smallest_subnormal, tiny.tiny, -tiny.smallest_subnormal, -tiny.tiny, 0, -0.0], dtype)
    with np.errstate(under="ignore"):
        got, steep = f(backend, name, z), slope(backend, name, z)
    exact = z.astype(np.float64)
    assert_close(got, WANT[name][0](exact), dtype)
    assert_close(steep, WANT[name][1](exact), dtype)


def test_in_place_and_beside_give_the_same_bits(backend, dtype, name):
    z = numbers(dtype).reshape(10, -1)
    kept, beside = z.copy(), np.empty_like(z)
    backend.ops.activate(activations.kind_of(name), z, beside)
    np.testing.assert_array_equal(z, kept)
    backend.ops.activate(activations.kind_of(name), z, z)
    assert z.tobytes() == beside.tobytes()


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (17, 33, 10), (70, 19, 1)], ids=str)
def test_backprop_is_a_product_times_the_slope(backend, dtype, name, shape):
    n, h, o = shape
    rng = np.random.default_rng(0)
    dz, W, z = (rng.standard_normal(shape).astype(dtype) for shape in ((n, o), (h, o), (n, h)))
    a, out = np.empty_like(z), np.full_like(z, np.nan)
    backend.ops.activate(activations.kind_of(name), z, a)
    kept = [array.copy() for array in (dz, W, z, a)]
    backend.ops.backprop(activations.kind_of(name), dz, W, z, a, out)
    assert_close(out, (dz.astype(np.float64) @ W.T) * WANT[name][1](z.astype(np.float64)), dtype)
    for got, want in zip((dz, W, z, a), kept, strict=True):
        np.testing.assert_array_equal(got, want)


def test_only_those_whose_slope_needs_z_keep_it(backend, dtype):
    """Where z is not kept, a lies over it: the slope must not look at z."""
    z = numbers(dtype)
    for name, activation in ACTIVATIONS.items():
        a = f(backend, name, z)
        given = z if activation.keeps_z else np.full_like(z, np.nan)
        out = np.empty((1, len(z)), dtype)
        backend.ops.backprop(
            activations.kind_of(name), np.ones((1, 1), dtype), np.ones((len(z), 1), dtype), given[None], a[None], out
        )
        assert_close(out[0], WANT[name][1](z.astype(np.float64)), dtype)


def test_a_network_counts_its_activations():
    assert Network((3, 4, 5, 2), "tanh").kinds == (3, 3, 0)
    assert Network((3, 4, 5, 2), ("relu", "gelu")).kinds == (1, 6, 0)
    assert Network((3, 4, 5, 2), ("relu", "gelu")).keeps_z == (False, True, False)
    assert Network((3, 2), ()).kinds == (0,)


@pytest.mark.parametrize("wrong", ["sigmoid", 3, None, ("relu",), ("relu", "tanh", "elu"), ("relu", "swish")], ids=str)
def test_activations_that_do_not_fit_are_refused(wrong):
    with pytest.raises(OptionError, match="activation: expected one"):
        _ = Network((3, 4, 5, 2), wrong).kinds
