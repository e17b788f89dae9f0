"""The passes around the matrix products, each fused into one loop over memory.

N rows, I inputs, H units, O classes. Arrays are C-ordered; floating arrays of one call share one type but for
``totals`` (float64). A row is worked on while it sits in the L1 cache.
"""

import math

from .cache import compiled


@compiled
def gather(X, index, pixel, out):
    """out = X[index] * pixel, read, scaled and written in one pass. X (M, I), index (N,) -> out (N, I)."""
    for n in range(len(index)):
        row = X[index[n]]
        for i in range(out.shape[1]):
            out[n, i] = row[i] * pixel


@compiled
def scale(X, pixel, out):
    """out = X * pixel, in one pass. X (N, I) -> out (N, I)."""
    for n in range(out.shape[0]):
        for i in range(out.shape[1]):
            out[n, i] = X[n, i] * pixel


@compiled
def softmax_cross_entropy(z, y, scale, dz, totals):
    """dz = (softmax(z) - onehot(y)) * scale; totals += [sum of losses, right answers]. z (N, O), y (N,) -> dz (N, O).

    scale has the type of z. Loss, probabilities and gradient of a row come from one visit to it.
    """
    loss, right = 0.0, 0
    for n in range(z.shape[0]):
        best = 0
        for o in range(1, z.shape[1]):
            if z[n, o] > z[n, best]:
                best = o
        top, target = z[n, best], z[n, y[n]]
        total = z.dtype.type(0)
        for o in range(z.shape[1]):
            e = math.exp(z[n, o] - top)  # at most 1: cannot overflow
            dz[n, o] = e
            total += e
        loss += math.log(total) - (target - top)  # total is at least 1: the logarithm is finite
        right += best == y[n]
        share = scale / total
        for o in range(z.shape[1]):
            dz[n, o] *= share
        dz[n, y[n]] -= scale
    totals[0] += loss
    totals[1] += right
