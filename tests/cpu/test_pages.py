"""Memory for a network's arrays."""

import numpy as np
import pytest

pytest.importorskip("numba")

from fastmlp.backends.pages import HUGE, LINE, Pages


@pytest.mark.parametrize("large", [False, True])
def test_arrays_are_zeros_that_begin_lines_and_lie_apart(large):
    pages = Pages(large)
    arrays = [
        pages.zeros(shape, np.dtype(dtype))
        for shape, dtype in [
            ((3, 5), "f4"),
            ((0, 7), "f4"),
            ((1,), "u2"),
            ((9,), "f8"),
            ((1000, 700), "f8"),
            ((2,), "i8"),
        ]
    ]
    for number, array in enumerate(arrays, start=1):
        assert not array.any()
        assert array.ctypes.data % LINE == 0
        array[...] = number
    for number, array in enumerate(arrays, start=1):
        assert (array == number).all()


def test_large_memory_begins_a_huge_page_and_is_used_up():
    pages = Pages(large=True)
    first, second = pages.zeros((100,), np.dtype("f4")), pages.zeros((100,), np.dtype("f4"))
    assert first.ctypes.data % HUGE == 0
    assert 0 < second.ctypes.data - first.ctypes.data < HUGE


def test_small_memory_is_no_larger_than_what_is_asked_for():
    array = Pages(large=False).zeros((10,), np.dtype("f4"))
    whole = array
    while whole.base is not None:
        whole = whole.base
    assert whole.nbytes <= 2 * LINE


@pytest.mark.parametrize("large", [False, True])
def test_rows_on_lines(large):
    rows = Pages(large).on_lines(3, 33, np.dtype("f4"))
    assert rows.shape == (3, 48)
    assert all(row.ctypes.data % LINE == 0 for row in rows)
