"""Marks and lists of what is not zero in rows, against NumPy."""

import numpy as np
import pytest

pytest.importorskip("numba")

from fastmlp.kernels.cpu import sparse
from fastmlp.kernels.cpu.cache import for_python
from fastmlp.kernels.cpu.vector import has_compress

GROUP, MARKS, WORD = sparse.GROUP, sparse.MARKS, sparse.WORD
call = for_python(sparse.mark, sparse.list_columns, sparse.list_rows, sparse.append_by_bytes)
ROOM = 72  # rows: not a whole number of looks


def rows_of(dtype, n, I, share):
    """Rows of which about `share` is not zero; among floats NaN and -0, which is zero."""
    rng = np.random.default_rng(n + I)
    X = np.where(rng.random((n, I)) < share, rng.integers(1, 256, (n, I)), 0).astype(dtype)
    if dtype != np.uint8:
        X[rng.random(X.shape) < 0.05] = np.nan
        X[rng.random(X.shape) < 0.05] = -0.0
    return X


def listed(rows, counts):
    return [row[:count].tolist() for row, count in zip(rows, counts, strict=True)]


def check_lists(dtype, n, I, share, order=None):
    """In room that has been used for more rows, none of them zero."""
    room = sparse.room_for_marks(np.zeros((ROOM, I), np.float32), np.zeros)
    everything = np.ones((ROOM, I), dtype)
    words = len(room.bits)
    call.mark(everything, None, 0, ROOM, room.bits)
    call.list_columns(room, ROOM)
    call.list_rows(room, ROOM)
    assert listed(room.columns, room.column_counts) == [list(range(I))] * (ROOM // GROUP)

    X = rows_of(dtype, n + 3, I, share)
    picked = X[3:] if order is None else X[order]
    call.mark(X, order, 3 if order is None else 0, n + 3 if order is None else n, room.bits)
    call.list_columns(room, n)
    call.list_rows(room, n)
    there = np.zeros((n, words * WORD), bool)
    there[:, :I] = picked != 0
    groups = there[: n // GROUP * GROUP].reshape(-1, GROUP, words * WORD).any(axis=1)
    want = [np.flatnonzero(group).tolist() for group in groups]
    assert listed(room.columns[: len(want)], room.column_counts[: len(want)]) == want
    groups = there.reshape(n, -1, GROUP).any(axis=2).T
    assert listed(room.rows, room.row_counts) == [np.flatnonzero(group).tolist() for group in groups]


def check_all_lists():
    for dtype in (np.uint8, np.float32, np.float64):
        for n in (1, 3, 4, MARKS - 1, MARKS, MARKS + 1, 2 * MARKS, 70):
            for I in (WORD, WORD + 1, 784, 2 * WORD - 1):
                check_lists(dtype, n, I, 0.2)
        check_lists(dtype, 20, 100, 0.0)
        check_lists(dtype, 20, 100, 1.0)


def test_lists():
    check_all_lists()


def test_lists_of_picked_rows():
    order = np.random.default_rng(0).permutation(43)[:40]
    check_lists(np.uint8, 40, 100, 0.3, order)


def test_marks_are_listed_alike_with_and_without_compression():
    append = [call.append_by_bytes]
    if has_compress():
        append.append(for_python(sparse.append_at_once).append_at_once)
    for seed in range(50):
        marks = np.uint64(np.random.default_rng(seed).integers(2**MARKS))
        want = [7, 7, *(100 + bit for bit in range(MARKS) if int(marks) >> bit & 1)]
        for function in append:
            out = np.full(2 * MARKS + 2, 7, np.uint16)
            assert function(out.ctypes.data, 2, marks, 100) == len(want)
            assert out[: len(want)].tolist() == want
