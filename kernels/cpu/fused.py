"""The passes around the matrix products, each fused into one loop over memory.

N rows, I inputs, H units, O classes. Arrays are C-ordered; floating arrays of one call share one type but for
``totals`` (float64). A row is worked on while it sits in the L1 cache.
"""

import math

import numpy as np

from .cache import compiled
from .call import array_at
from .exponential import exp, log
from .packing import LINE, prefetch
from .reductions import below_top, sum_at, top_at

AHEAD = 12  # rows that are asked for before the one that is read: they come from far away


@compiled
def gather(X, index, pixel, out):
    """out = X[index] * pixel, read, scaled and written in one pass. X (M, I), index (N,) -> out (N, I).

    What follows in index, which may be longer, is soon to be read.
    """
    for n in range(len(out)):
        fetch_ahead(X, index, n)
        row = X[index[n]]
        for i in range(out.shape[1]):
            out[n, i] = row[i] * pixel


@compiled
def fetch_ahead(X, index, n):
    """Ask for the row of X (M, I) that is read soon after the n-th of `index`, where its numbers lie side by side."""
    if n + AHEAD < len(index) and X.strides[1] == X.itemsize:
        start = X.ctypes.data + index[n + AHEAD] * X.strides[0]
        for line in range(start, start + X.shape[1] * X.itemsize, LINE):
            prefetch(line)


@compiled
def scale(X, pixel, out):
    """out = X * pixel, in one pass. X (N, I) -> out (N, I)."""
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[n, i] = X[n, i] * pixel


@compiled
def softmax(z):
    """z = exp(z) / sum(exp(z)) over each row, in its place. z (N, O)."""
    N, O = z.shape
    for n in range(N):
        row = z.ctypes.data + n * z.strides[0]
        below_top(z, row, O, top_at(z, row, O), row)  # at most 0: exp cannot overflow
    e = array_at(z.ctypes.data, N * O, z.dtype)
    for i in range(N * O):
        e[i] = exp(e[i])
    for n in range(N):
        share = z.dtype.type(1) / sum_at(z, z.ctypes.data + n * z.strides[0], O)
        for o in range(O):
            z[n, o] *= share


@compiled
def softmax_cross_entropy(z, y, scale, dz, totals, weight, numbers):
    """dz = (softmax(z) - target) * scale; totals += [sum of losses, right answers]. z (N, O), y (N,) -> dz (N, O).

    scale has the type of z; weight (N,) multiplies a row's loss and dz, or is empty. numbers (3,) are smoothing: the
    target is (1 - smoothing) onehot(y) + smoothing / O; gamma: the loss is focal; and ceiling: the most that a row adds
    to totals; 0 is none. Exponentials and logarithms of all rows are taken in one sweep each, so that narrow rows fill
    the vectors.
    """
    N, O = z.shape
    real = z.dtype.type
    smoothing, gamma, ceiling = numbers[0], numbers[1], numbers[2]
    loss, right = 0.0, 0
    targets = np.empty(N, z.dtype)  # (N,) sum of target * (z - top); dz may lie over z
    sums, logs = np.empty(N, z.dtype), np.empty(N, z.dtype)  # (N,) of the exponentials
    for n in range(N):
        row, out = z.ctypes.data + n * z.strides[0], dz.ctypes.data + n * dz.strides[0]
        top = top_at(z, row, O)
        right += below_top(z, row, O, top, out) == y[n]  # at most 0: exp cannot overflow
        targets[n] = dz[n, y[n]]
        if smoothing > 0:
            mean = sum_at(dz, out, O) / real(O)
            targets[n] = (real(1) - smoothing) * targets[n] + smoothing * mean
    e = array_at(dz.ctypes.data, N * O, dz.dtype)
    for i in range(N * O):
        e[i] = exp(e[i])
    for n in range(N):
        sums[n] = sum_at(dz, dz.ctypes.data + n * dz.strides[0], O)  # at least 1: the logarithm is finite
    for n in range(N):
        logs[n] = log(sums[n])
    for n in range(N):
        row_loss = logs[n] - targets[n]
        factor = scale
        if gamma > 0:  # the loss is (1 - p)^gamma times -log p
            miss = -math.expm1(-row_loss)  # 1 - p
            weaker = miss**gamma
            steeper = gamma * (1 - miss) * row_loss * weaker / miss if miss > 0 else 0.0
            factor *= real(weaker + steeper)
            row_loss *= weaker
        if ceiling > 0:
            row_loss = min(row_loss, np.float64(ceiling))
        if len(weight):
            factor *= weight[n]
            row_loss *= weight[n]
        loss += row_loss
        share = factor / sums[n]
        for o in range(O):
            dz[n, o] *= share
        dz[n, y[n]] -= factor * (real(1) - smoothing)
        if smoothing > 0:
            for o in range(O):
                dz[n, o] -= factor * smoothing / real(O)
    totals[0] += loss
    totals[1] += right
