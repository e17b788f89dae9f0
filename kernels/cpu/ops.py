"""The fused operations of a dense network, compiled; the products are our own microkernels.

N rows, I inputs, H units, O classes. Rows of every array are contiguous; the rows themselves may lie apart, and the
left operand of a product may have any strides. Floating arrays of one call share one type, whose products have been
published (`product.publish`), but for ``totals``, which is float64.
"""

from .cache import compiled
from .product import DEPTH, multiply, multiply_mask, multiply_relu


@compiled
def all_but_last(like, a, a_row, a_step, b, b_row, start, start_row, c, c_row, M, N, K):
    """C = start + A B over k in pieces of DEPTH, but for the last piece, which is the caller's to finish.

    Returns where it begins: a, b, start, start_row and how many k are left.
    """
    while K > DEPTH:
        multiply(like, a, a_row, a_step, b, b_row, start, start_row, c, c_row, 0, 0, M, N, DEPTH)
        a, b, start, start_row, K = a + DEPTH * a_step, b + DEPTH * b_row, c, c_row, K - DEPTH
    return a, b, start, start_row, K


@compiled
def affine(x, W, b, out, relu):
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H). 2*N*I*H flop."""
    N, I = x.shape
    H = W.shape[1]
    (x_row, x_step), W_row, c, c_row = x.strides, W.strides[0], out.ctypes.data, out.strides[0]
    a, w, start, start_row, I = all_but_last(
        b, x.ctypes.data, x_row, x_step, W.ctypes.data, W_row, b.ctypes.data, 0, c, c_row, N, H, I
    )
    if relu:
        multiply_relu(b, a, x_row, x_step, w, W_row, start, start_row, c, c_row, 0, 0, N, H, I)
    else:
        multiply(b, a, x_row, x_step, w, W_row, start, start_row, c, c_row, 0, 0, N, H, I)


@compiled
def backprop_relu(dz, WT, a, out):
    """out = (dz WT) * (a > 0), for W^T laid out as WT (O, H). dz (N, O), a (N, H) -> out (N, H). 2*N*O*H flop."""
    N, O = dz.shape
    H = WT.shape[1]
    (d_row, d_step), W_row, c, c_row = dz.strides, WT.strides[0], out.ctypes.data, out.strides[0]
    d, w, start, start_row, O = all_but_last(
        dz, dz.ctypes.data, d_row, d_step, WT.ctypes.data, W_row, 0, 0, c, c_row, N, H, O
    )
    gate, gate_row = a.ctypes.data, a.strides[0]
    multiply_mask(dz, d, d_row, d_step, w, W_row, start, start_row, c, c_row, gate, gate_row, N, H, O)


@compiled
def gradient_rows(a, dz, dW, first, last, add):
    """Rows `first` to `last` of dW = a^T dz, or added to them. a (N, H), dz (N, O), dW (H, O). 2*N*H*O flop."""
    N, O = dz.shape
    M = last - first
    (a_row, a_step), d_row, c_row = a.strides, dz.strides[0], dW.strides[0]
    c = dW.ctypes.data + first * c_row
    start, start_row = (c, c_row) if add else (0, 0)
    left, right, start, start_row, N = all_but_last(
        dz, a.ctypes.data + first * a_step, a_step, a_row, dz.ctypes.data, d_row, start, start_row, c, c_row, M, O, N
    )
    multiply(dz, left, a_step, a_row, right, d_row, start, start_row, c, c_row, 0, 0, M, O, N)


@compiled
def weight_gradient(a, dz, dW, db, add):
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    gradient_rows(a, dz, dW, 0, dW.shape[0], add)
    column_sums(dz, 0, dz.shape[1], db, add)


@compiled
def column_sums(dz, first, last, db, add):
    """Entries `first` to `last` of db = column sums of dz, or added to them. dz (N, O), db (O,)."""
    sums = db[first:last]
    if not add:
        sums[:] = 0
    for n in range(dz.shape[0]):
        row = dz[n, first:last]
        for o in range(len(sums)):
            sums[o] += row[o]


@compiled
def transpose_rows(W, first, last, WT):
    """Columns `first` to `last` of WT = W^T. W (H, O) -> WT (O, H)."""
    for o in range(W.shape[1]):
        for h in range(first, last):
            WT[o, h] = W[h, o]
