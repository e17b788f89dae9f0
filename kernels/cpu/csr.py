"""CSR rows in the first layer: its product and its gradient, over the numbers that are there.

Rows are read where they lie, in whatever order a row's own numbers stand; a place that stands twice counts twice, as in
SciPy. For the gradient the numbers of a batch are listed column by column: all of W moves at each step, so the loop
that makes a row of dW and the one that applies it are one pass over W, whether the column has numbers or not. Sums are
in the order of the rows, whatever the threads.

N rows, I inputs, H units. Floating arrays of one call share one type; W and dW may be seen as uint32, the same bits,
where other products round their operands (see `product`): these do not.
"""

from typing import NamedTuple

import numpy as np

from .cache import compiled
from .call import array_at


class CSR(NamedTuple):
    """All rows (M, I); their numbers and the columns these stand in, one row behind the other."""

    starts: np.ndarray  # (M + 1,) int64, where each row begins
    columns: np.ndarray  # int32
    values: np.ndarray


class Lists(NamedTuple):
    """Of each column, the rows of a batch that have a number there, and the numbers, in the order of the rows."""

    begins: np.ndarray  # (I,) int64
    ends: np.ndarray  # (I,) int64
    rows: np.ndarray  # int32
    values: np.ndarray


class Picked(NamedTuple):
    """Rows order[first : first + count] of X; the compiled operations take it in the place of an array x."""

    X: CSR
    order: np.ndarray  # (N,) int64, or None: as they stand
    first: int
    count: int
    lists: Lists


def room_for_lists(I, numbers, dtype):
    """`Lists` of I columns for up to so many numbers."""
    return Lists(np.empty(I, np.int64), np.empty(I, np.int64), np.empty(numbers, np.int32), np.empty(numbers, dtype))


@compiled
def place(order, n):
    """Where the n-th row in the order of visits lies."""
    if order is None:
        return n
    return order[n]


@compiled
def add_scaled(like, factor, source, to, count):
    """to += factor * source, `count` numbers of the type of `like` at two addresses."""
    a, b = array_at(source, count, like.dtype), array_at(to, count, like.dtype)
    for j in range(count):
        b[j] += factor * a[j]


@compiled
def affine(x, W, b, out, relu):
    """out = x W + b, then max(., 0) if relu. x `Picked`, W (I, H), b (H,) -> out (N, H). 2*(numbers of x)*H flop."""
    H = W.shape[1]
    starts, columns, values = x.X
    for n in range(x.count):
        row, to = place(x.order, x.first + n), out.ctypes.data + n * out.strides[0]
        for j in range(H):
            out[n, j] = b[j]
        for p in range(starts[row], starts[row + 1]):
            add_scaled(values, values[p], W.ctypes.data + columns[p] * W.strides[0], to, H)
        if relu:
            for j in range(H):
                out[n, j] = 0 if out[n, j] < 0 else out[n, j]  # a NaN passes


@compiled
def list_columns(x, first, last):
    """List the numbers in columns `first` to `last` of the picked rows."""
    starts, columns, values = x.X
    begins, ends = x.lists.begins, x.lists.ends
    before = 0  # numbers of the columns to the left: other threads list them
    ends[first:last] = 0
    for n in range(x.count):
        row = place(x.order, x.first + n)
        for p in range(starts[row], starts[row + 1]):
            k = columns[p]
            if k < first:
                before += 1
            elif k < last:
                ends[k] += 1
    for k in range(first, last):
        count = ends[k]
        begins[k] = ends[k] = before
        before += count
    for n in range(x.count):
        row = place(x.order, x.first + n)
        for p in range(starts[row], starts[row + 1]):
            k = columns[p]
            if first <= k < last:
                at = ends[k]
                x.lists.rows[at], x.lists.values[at] = n, values[p]
                ends[k] = at + 1


@compiled
def gradient_rows(a, dz, dW, first, last, add):
    """dW = rows `first` to `last` of a^T dz, or added to it. a `Picked` and listed, dz (N, O), dW (last - first, O)."""
    O = dz.shape[1]
    lists = a.lists
    for k in range(first, last):
        if not add:
            dW[k - first] = 0
        to = dW.ctypes.data + (k - first) * dW.strides[0]
        for p in range(lists.begins[k], lists.ends[k]):
            add_scaled(lists.values, lists.values[p], dz.ctypes.data + lists.rows[p] * dz.strides[0], to, O)
