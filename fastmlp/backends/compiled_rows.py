"""How rows, their labels and their weights reach compiled code, by the type of what they lie in.

Rows of an array are gathered into a thread's room, and marked where products skip their zeros; rows of CSR are read
where they lie.
"""

from __future__ import annotations

import numpy as np
from numba import types

from fastmlp.backends.compiled_update import share
from fastmlp.backends.numpy import PIXEL
from fastmlp.kernels.cpu import csr, fused, sparse
from fastmlp.kernels.cpu.cache import compiled, overload
from fastmlp.kernels.cpu.call import array_at
from fastmlp.kernels.cpu.packing import round_rows


def take_rows(X, order, first, last, buffer):
    """Rows order[first:last] of X (M, I) as numbers for the first layer (n, I): in `buffer`, or where they lie.

    A buffer of uint16 is for bfloat16.
    """


@overload(take_rows)
def _take_rows(X, order, first, last, buffer):
    pixel = PIXEL if X.dtype == types.uint8 else 1
    if buffer.dtype == types.uint16:
        ready = X.dtype == types.float32 and X.layout == "C"

        def rounded_to_bfloat16(X, order, first, last, buffer):
            x, I = buffer[: last - first], X.shape[1]
            scaled = np.empty((1, 0 if ready else I), np.float32)
            for n in range(last - first):
                if order is not None:
                    fused.fetch_ahead(X, order, first + n)
                row, to = csr.place(order, first + n), x.ctypes.data + n * x.strides[0]
                if ready:
                    round_rows(X.ctypes.data + row * X.strides[0], 0, 1, I, to, 0)
                else:
                    fused.scale(X[row : row + 1], np.float32(pixel), scaled)
                    round_rows(scaled.ctypes.data, 0, 1, I, to, 0)
            return x

        return rounded_to_bfloat16
    if order is types.none and X.dtype == buffer.dtype and X.layout == "C":

        def where_they_lie(X, order, first, last, buffer):
            start = X.ctypes.data + first * X.strides[0]  # X may be read-only, which is another type
            return array_at(start, (last - first, X.shape[1]), X.dtype)

        return where_they_lie
    if order is types.none:

        def in_order(X, order, first, last, buffer):
            x = buffer[: last - first]
            fused.scale(X[first:last], x.dtype.type(pixel), x)
            return x

        return in_order

    def picked(X, order, first, last, buffer):
        x = buffer[: last - first]
        fused.gather(X, order[first:], x.dtype.type(pixel), x)
        return x

    return picked


def mark_rows(X, order, first, last, x, bits):
    """Mark the non-zeros of rows order[first:last] of X (M, I), which are in x (n, I), in bits (n, words)."""


@overload(mark_rows)
def _mark_rows(X, order, first, last, x, bits):
    if X.dtype == types.uint8 and X.layout == "C":  # read where they come from: a register holds more of them
        return lambda X, order, first, last, x, bits: sparse.mark(X, order, first, last, bits)
    return lambda X, order, first, last, x, bits: sparse.mark(x, None, 0, last - first, bits)


def take(X, order, first, last, room):
    """Rows order[first:last] of X (M, I) in `room`, marked and listed for the forward product.

    Rows of CSR stay where they lie.
    """


@overload(take)
def _take(X, order, first, last, room):
    if not isinstance(X, types.Array):
        return lambda X, order, first, last, room: csr.Picked(X, order, first, last - first, room.marked)
    if isinstance(room.types[room.fields.index("marked")], types.NoneType):
        return lambda X, order, first, last, room: take_rows(X, order, first, last, room.x)

    def marked(X, order, first, last, room):
        x = take_rows(X, order, first, last, room.x)  # (n, I)
        m = sparse.Marked(x, *room.marked[1:])
        mark_rows(X, order, first, last, x, m.bits)
        sparse.list_columns(m, len(x))
        return m

    return marked


def list_for_gradient(x, thread, threads):
    """List the features for the weight gradient: of CSR rows this thread's share, of marked ones all.

    A core makes these sooner than it reads another's. An array needs no list.
    """


@overload(list_for_gradient)
def _list_for_gradient(x, thread, threads):
    if isinstance(x, types.Array):
        return lambda x, thread, threads: None
    if x.instance_class is csr.Picked:

        def columns(x, thread, threads):
            first, last = share(len(x.lists.ends), thread, threads, 1)
            csr.list_columns(x, first, last)

        return columns

    return lambda x, thread, threads: sparse.list_rows(x, len(x.x))


@compiled
def take_labels(y, order, first, last):
    """The labels of rows order[first:last] -> (n,)."""
    if order is None:
        return y[first:last]
    labels = np.empty((last - first, *y.shape[1:]), y.dtype)  # a loop, since y[order] takes longer to compile
    for n in range(last - first):
        labels[n] = y[order[first + n]]
    return labels


def take_weights(weight, first, last):
    """The weights of rows `first` to `last` in the order of visits -> (n,), or None."""


@overload(take_weights)
def _take_weights(weight, first, last):
    if weight is types.none:
        return lambda weight, first, last: None
    return lambda weight, first, last: weight[first:last]
