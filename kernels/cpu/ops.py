"""The fused operations of a dense network, compiled; the products are our own microkernels.

N rows, I inputs, H units, O classes. Rows of every array are contiguous; the rows themselves may lie apart, and the
left operand of a product may have any strides. Floating arrays of one call share one type, whose products have been
published (`product.publish`), but for ``totals``, which is float64.
"""

from numba import types

from . import csr
from .cache import compiled, overload
from .microkernel import MASK, PLAIN, RELU
from .product import multiply, multiply_listed
from .reductions import add_columns
from .sparse import GROUP
from .vector import register_bytes

MASKS = register_bytes() > 16  # whether registers are loaded under a mask; elsewhere LLVM asks lane by lane


def affine(x, W, b, out, relu):
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H). 2*N*I*H flop.

    x is an array, or `Marked` rows, whose zeros are skipped, or `csr.Picked` rows.
    """


def dense_affine(x, W, b, out, relu):
    """`affine` of an array x (N, I)."""
    N, I = x.shape
    H = W.shape[1]
    (x_row, x_step), W_row, c, c_row = x.strides, W.strides[0], out.ctypes.data, out.strides[0]
    multiply(W, x.ctypes.data, x_row, x_step, W.ctypes.data, W_row, W.itemsize, b.ctypes.data, 0, c, c_row,
             0, 0, N, H, I, RELU if relu else PLAIN)  # fmt: skip


def listed_affine(x, W, b, out, relu):
    """`affine` of marked rows x."""
    N, H = out.shape
    (x_row, x_step), W_row, c, c_row = x.x.strides, W.strides[0], out.ctypes.data, out.strides[0]
    for group in range(N // GROUP):
        left, to = x.x.ctypes.data + group * GROUP * x_row, c + group * GROUP * c_row
        places, count = x.columns.ctypes.data + group * x.columns.strides[0], x.column_counts[group]
        multiply_listed(W, left, x_row, x_step, W.ctypes.data, W_row, W.itemsize, b.ctypes.data, 0, to,
                        c_row, places, 0, GROUP, H, count, RELU if relu else PLAIN)  # fmt: skip
    done = N // GROUP * GROUP
    affine(x.x[done:N], W, b, out[done:], relu)


@compiled
def product(x, W, out):
    """out = x W. x (N, I), W (I, H) -> out (N, H). 2*N*I*H flop."""
    N, I = x.shape
    (x_row, x_step), c, c_row = x.strides, out.ctypes.data, out.strides[0]
    multiply(W, x.ctypes.data, x_row, x_step, W.ctypes.data, W.strides[0], W.itemsize, 0, 0, c, c_row, 0, 0, N,
             W.shape[1], I, PLAIN)  # fmt: skip


@compiled
def add_parts(parts, b, first, last, relu, out):
    """out = b + parts[0] + parts[1] + ..., rows `first` to `last` of them, then max(., 0) if relu.

    Each part (N, H) lies flat in a row of parts (threads, N*H or more); b (H,) -> out (last - first, H).
    """
    H = len(b)
    for n in range(first, last):
        row = out[n - first]
        for h in range(H):
            row[h] = b[h]
        for part in range(len(parts)):
            numbers = parts[part, n * H : (n + 1) * H]
            for h in range(H):
                row[h] += numbers[h]
        if relu:
            for h in range(H):
                row[h] = 0 if row[h] < 0 else row[h]  # a NaN passes


@compiled
def backprop_relu(dz, W, a, out):
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H). 2*N*O*H flop."""
    N, O = dz.shape
    H = W.shape[0]
    (d_row, d_step), W_row, c, c_row = dz.strides, W.strides[0], out.ctypes.data, out.strides[0]
    multiply(W, dz.ctypes.data, d_row, d_step, W.ctypes.data, W.itemsize, W_row, 0, 0, c, c_row,
             a.ctypes.data, a.strides[0], N, H, O, MASK)  # fmt: skip


@compiled
def backprop(dz, W, out):
    """out = dz W^T. dz (N, O), W (H, O) -> out (N, H). 2*N*O*H flop."""
    N, O = dz.shape
    H = W.shape[0]
    (d_row, d_step), W_row, c, c_row = dz.strides, W.strides[0], out.ctypes.data, out.strides[0]
    multiply(W, dz.ctypes.data, d_row, d_step, W.ctypes.data, W.itemsize, W_row, 0, 0, c, c_row, 0, 0, N, H, O, PLAIN)


def gradient_rows(a, dz, dW, first, last, add):
    """dW = rows `first` to `last` of a^T dz, or added to it. a (N, H), dz (N, O), dW (last - first, O).

    a is an array, or `Marked` rows, whose zeros are skipped; `first` is then a multiple of GROUP; or `csr.Picked` rows.
    """


def dense_gradient_rows(a, dz, dW, first, last, add):
    """`gradient_rows` of an array a (N, H)."""
    N, O = dz.shape
    M = last - first
    (a_row, a_step), d_row, c_row = a.strides, dz.strides[0], dW.strides[0]
    c = dW.ctypes.data
    start, start_row = (c, c_row) if add else (0, 0)
    multiply(dW, a.ctypes.data + first * a_step, a_step, a_row, dz.ctypes.data, d_row, dz.itemsize, start, start_row, c,
             c_row, 0, 0, M, O, N, PLAIN)  # fmt: skip


def listed_gradient_rows(a, dz, dW, first, last, add):
    """`gradient_rows` of marked rows a."""
    O = dz.shape[1]
    (a_row, a_step), d_row, c_row = a.x.strides, dz.strides[0], dW.strides[0]
    for group in range(first // GROUP, last // GROUP):
        left, c = a.x.ctypes.data + group * GROUP * a_step, dW.ctypes.data + (group * GROUP - first) * c_row
        places, count = a.rows.ctypes.data + group * a.rows.strides[0], a.row_counts[group]
        start, start_row = (c, c_row) if add else (0, 0)
        multiply_listed(dW, left, a_step, a_row, dz.ctypes.data, d_row, dz.itemsize, start, start_row, c,
                        c_row, places, 0, GROUP, O, count, PLAIN)  # fmt: skip
    done = max(first, last // GROUP * GROUP)
    gradient_rows(a.x[: dz.shape[0]], dz, dW[done - first :], done, last, add)


def by_type(x, dense, listed, sparse):
    """One of three, by the Numba type of rows x."""
    if isinstance(x, types.Array):
        return dense
    return sparse if x.instance_class is csr.Picked else listed


@overload(affine)
def _affine(x, W, b, out, relu):
    return by_type(x, dense_affine, listed_affine, csr.affine.py_func)


@overload(gradient_rows)
def _gradient_rows(a, dz, dW, first, last, add):
    return by_type(a, dense_gradient_rows, listed_gradient_rows, csr.gradient_rows.py_func)


@compiled
def weight_gradient(a, dz, dW, db, add):
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    gradient_rows(a, dz, dW, 0, dW.shape[0], add)
    column_sums(dz, 0, dz.shape[1], db, add)


@compiled
def column_sums(dz, first, last, db, add):
    """db = sums of columns `first` to `last` of dz, or added to it. dz (N, O), db (last - first,)."""
    if not add:
        db[:] = 0
    if MASKS:
        start = dz.ctypes.data + first * dz.itemsize
        add_columns(dz, start, dz.strides[0], dz.shape[0], last - first, db.ctypes.data)
        return
    for n in range(dz.shape[0]):
        row = dz[n, first:last]
        for o in range(len(db)):
            db[o] += row[o]
