"""Sums, maxima and their places over any count of numbers; what lies around them is not read."""

import numpy as np
import pytest
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp.kernels.cpu import reductions
from fastmlp.kernels.cpu.cache import compiled, for_python

COUNTS = [*range(41), 100, 257]


def sums(x, count):
    return reductions.sum_at(x, x.ctypes.data, count), reductions.squares_at(x, x.ctypes.data, count)


def top(x, count, out):
    found = reductions.top_at(x, x.ctypes.data, count)
    return found, reductions.below_top(x, x.ctypes.data, count, found, out.ctypes.data)


def columns(x, first, last, out):
    start = x.ctypes.data + first * x.itemsize
    reductions.add_columns(x, start, x.strides[0], len(x), last - first, out.ctypes.data)


call = for_python(compiled(sums), compiled(top), compiled(columns))


def numbers(count, real):
    """Some numbers at an odd address, NaN around them."""
    room = np.full(count + 70, np.nan, real)
    x = room[3 : 3 + count]
    x[:] = np.random.default_rng(count).standard_normal(count)
    return x, room


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_sums(real):
    for count in COUNTS:
        x, _ = numbers(count, real)
        total, squares = call.sums(x, count)
        exact = x.astype(np.float64)
        assert_close(total / max(count, 1), exact.sum() / max(count, 1), real)
        assert squares == pytest.approx((exact**2).sum(), rel=1e-14)


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_columns_are_summed_in_the_order_of_the_rows(real):
    for count in COUNTS:
        x = np.random.default_rng(count).standard_normal((7, count + 5)).astype(real)
        out, frame = numbers(count, real)
        expected = out.copy()
        for row in x:
            expected += row[2 : 2 + count]
        call.columns(x, 2, 2 + count, out)
        np.testing.assert_array_equal(out, expected)
        assert np.isnan(frame).sum() == 70
        call.columns(x[:0], 2, 2 + count, out)
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("in_place", [False, True])
def test_the_top_and_its_place(real, in_place):
    for count in COUNTS[1:]:
        x, room = numbers(count, real)
        for place in {0, count // 2, count - 1}:
            x[place] = x[count - 1] = 9  # of equal ones the first counts
            before = x.copy()
            out, frame = (x, room) if in_place else numbers(count, real)
            assert call.top(x, count, out) == (9, place)
            np.testing.assert_array_equal(out, before - 9)
            assert np.isnan(frame).sum() == 70
            x[:] = before
            x[place] = -1


def test_nan_is_overlooked_and_infinity_is_not():
    for at in (0, 5, 20):
        x, _ = numbers(21, "float32")
        x[at] = np.nan
        assert call.top(x, 21, x.copy()) == (np.nanmax(x), np.nanargmax(x))
        x[at] = np.inf
        assert call.top(x, 21, x.copy()) == (np.inf, at)
    x = np.full(21, np.nan, np.float32)
    assert call.top(x, 21, x.copy()) == (-np.inf, 0)
