"""The maths of a dense network, once.

Every backend runs `forward`, `deltas` and `gradients`, as they stand or compiled; nothing else in the project writes
out a derivative, except a kernel that fuses some of these steps, says which, and is tested against them.
docs/maths.md walks through the derivation line by line.

Letters, here and everywhere::

    N  samples (rows)        x   (N, I)   input                      W[l] (H_l-1, H_l)  weights of layer l
    I  inputs (columns)      z   (N, H)   x W + b                    b[l] (H_l,)        biases of layer l
    H  units of a layer      a   (N, H)   relu(z); last: z itself    d...               dLoss/d...
    O  outputs (classes)     y   (N,)     class index, 0 .. O-1      P                  all parameters

``ops`` is the backend's set of fused operations (`fastmlp.backends.base.Ops`). Each writes into its last
arguments, so that a step allocates nothing. ``W``, ``b``, ``a``, ``dz``, ``dW`` and ``db`` are tuples with one
array a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastmlp.backends.base import Ops

Array = Any  # numpy.ndarray or cupy.ndarray
Layers = tuple[Array, ...]


def forward(ops: Ops, x: Array, W: Layers, b: Layers, a: Layers) -> None:
    """a[l] = relu(a[l-1] W[l] + b[l]) for the hidden layers; a[-1] = a[-2] W[-1] + b[-1], the logits.

    x (N, I), W[l] (H_l-1, H_l), b[l] (H_l,) -> a[l] (N, H_l), written in place. 2*N*sum(H_l-1*H_l) flop.
    """
    last = len(W) - 1
    ops.affine(x, W[0], b[0], a[0], last > 0)  # (N, I)(I, H) -> (N, H)
    for l in range(1, last + 1):
        ops.affine(a[l - 1], W[l], b[l], a[l], l < last)  # (N, H)(H, O) -> (N, O)


def deltas(ops: Ops, W: Layers, a: Layers, dz: Layers) -> None:
    """dz[l-1] = (dz[l] W[l]^T) * (a[l-1] > 0), from the last layer, whose dz is given, to the first.

    A row of dz needs only its own row of a: rows may be split over threads or tiles.
    """
    for l in range(len(W) - 1, 0, -1):
        ops.backprop_relu(dz[l], W[l], a[l - 1], dz[l - 1])  # (N, O)(O, H) * (N, H) -> (N, H)


def gradients(ops: Ops, x: Array, a: Layers, dz: Layers, dW: Layers, db: Layers, add: bool) -> None:
    """dW[l] = a[l-1]^T dz[l] and db[l] = column sums of dz[l]; with `add`, which the operation is told, added to what
    is there. An operation may also put a gradient to use at once, as the compiled update of a small batch does.

    A row of dW needs only its own column of a: columns may be split over threads.
    """
    ops.weight_gradient(x, dz[0], dW[0], db[0], add)  # (I, N)(N, H) -> (I, H)
    for l in range(1, len(dz)):
        ops.weight_gradient(a[l - 1], dz[l], dW[l], db[l], add)  # (H, N)(N, O) -> (H, O)


def loss_and_gradients(
    ops: Ops, x: Array, y: Array, scale: float, W: Layers, b: Layers, a: Layers, dz: Layers, dW: Layers, db: Layers,
    totals: Array, add: bool,
) -> None:  # fmt: skip
    """One pass forward and back over the rows x (N, I), y (N,); adds [sum of losses, right answers] to totals (2,).

    `scale` is 1 / (rows of the batch): the loss is the mean, so its gradient carries 1/n. The rows may be a part
    of the batch; `add` then gathers the gradients of its parts.
    """
    forward(ops, x, W, b, a)
    ops.softmax_cross_entropy(a[-1], y, scale, dz[-1], totals)  # dz = (softmax(z) - onehot(y)) * scale
    deltas(ops, W, a, dz)
    gradients(ops, x, a, dz, dW, db, add)


def softmax(z: np.ndarray) -> np.ndarray:
    """exp(z) / sum(exp(z)) over each row, shifted by the row's maximum so that exp cannot overflow.

    z (N, O), any floating type -> (N, O), a new array of the same type; rows sum to 1.
    """
    e = np.exp(z - z.max(axis=1, keepdims=True))  # (N, O)
    return np.asarray(e / e.sum(axis=1, keepdims=True))  # (N, O)


def parameter_count(sizes: Sequence[int]) -> int:
    """Weights and biases of a net with layers of `sizes` units, e.g. (784, 160, 10) -> 127,210."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def layer_views(flat: Array, sizes: Sequence[int]) -> tuple[Layers, Layers]:
    """The weights and biases inside one flat array (P,), as views: W[l] (sizes[l], sizes[l+1]), b[l] (sizes[l+1],).

    All weights and biases share one array so that an optimizer's update is one pass over it.
    """
    W, b, start = [], [], 0
    for fan_in, fan_out in pairwise(sizes):
        end = start + fan_in * fan_out
        W.append(flat[start:end].reshape(fan_in, fan_out))
        b.append(flat[end : end + fan_out])
        start = end + fan_out
    return tuple(W), tuple(b)


def initialise(sizes: Sequence[int], rng: np.random.Generator, dtype: np.dtype) -> np.ndarray:
    """Start values (P,): W ~ N(0, 2 / fan_in), b = 0.

    He et al., "Delving Deep into Rectifiers", 2015, eq. 10: keeps the variance of activations through ReLU layers.
    Drawn in float64 whatever `dtype` is, so that one seed starts every precision at the same point.
    """
    flat = np.zeros(parameter_count(sizes), dtype)  # (P,)
    for W in layer_views(flat, sizes)[0]:
        W[:] = rng.standard_normal(W.shape) * np.sqrt(2.0 / W.shape[0])
    return flat
