"""The maths of a dense network, once.

Every backend runs `forward`, `deltas` and `gradients`, as they stand or compiled; nothing else in the project writes
out a derivative, except the rules of elements in `activations` and `losses`, and a kernel that fuses some of these
steps, says which, and is tested against them. docs/maths.md walks through the derivation line by line.

Letters, here and everywhere::

    N  samples (rows)        x   (N, I)   input                      W[l] (H_l-1, H_l)  weights of layer l
    I  inputs (columns)      z   (N, H)   x W + b                    b[l] (H_l,)        biases of layer l
    H  units of a layer      a   (N, H)   f(z); last: z itself       d...               dLoss/d...
    O  outputs (classes)     h   (N, H)   a, less what dropout       P                  all parameters
    y  (N,) class index,                  leaves out
       or (N, O) targets

``ops`` is the backend's set of fused operations (`fastmlp.backends.base.Ops`). Each writes into its last
arguments, so that a step allocates nothing. ``W``, ``b``, ``z``, ``a``, ``h``, ``dz``, ``dW`` and ``db`` are tuples
with one array a layer, ``kinds`` with the number of each layer's activation, the last being the identity. z[l] may be
a[l] itself where the activation's slope needs no z, and h[l] is a[l] where nothing is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastmlp import activations, losses
from fastmlp.activations import IDENTITY, RELU
from fastmlp.dropout import Dropout
from fastmlp.errors import OptionError
from fastmlp.losses import SOFTMAX

if TYPE_CHECKING:
    from fastmlp.backends.base import Ops

Array = Any  # numpy.ndarray or cupy.ndarray
Layers = tuple[Array, ...]


@dataclass(frozen=True)
class Network:
    """What is computed, apart from the parameters.

    Raises OptionError for an activation or a loss there is none of.
    """

    sizes: tuple[int, ...]  # inputs, hidden layers, outputs
    activation: str | tuple[str, ...] = "relu"  # of the hidden layers; one name for all, or one each
    loss: str = "cross_entropy"
    numbers: tuple[float, ...] = ()  # the loss's own, see `losses` and `Ops.softmax_cross_entropy`; () is none of them
    dropout: float = 0.0  # share of hidden units left out in training

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """The number of each layer's activation; the last layer's is the identity."""
        hidden = len(self.sizes) - 2
        names = (self.activation,) * hidden if isinstance(self.activation, str) else self.activation
        if not isinstance(names, tuple | list) or len(names) != hidden:
            raise OptionError(
                f"activation: expected one name, or one for each of the {hidden} hidden layers; got {self.activation!r}"
            )
        return (*map(activations.kind_of, names), IDENTITY)

    @cached_property
    def loss_kind(self) -> int:
        """The loss's number."""
        return losses.kind_of(self.loss)

    @cached_property
    def keeps_z(self) -> tuple[bool, ...]:
        """Of each layer, whether z is kept beside a."""
        return tuple(activations.KINDS[kind].keeps_z for kind in self.kinds)

    def loss_numbers(self, dtype: np.dtype) -> np.ndarray:
        """The loss's numbers as the operations take them: (3,) for cross entropy, else one an output (O,)."""
        count = 3 if self.loss_kind == SOFTMAX else self.sizes[-1]
        numbers = np.array(self.numbers or (0.0,) * count, dtype)
        if numbers.shape != (count,):  # kernels would read beyond their end
            raise OptionError(f"numbers: the loss {self.loss!r} takes {count} here; got {self.numbers}")
        return numbers


def forward(
    ops: Ops, kinds: tuple[int, ...], x: Array, W: Layers, b: Layers, z: Layers, a: Layers, h: Layers, drop: Dropout
) -> None:
    """z[l] = h[l-1] W[l] + b[l], a[l] = f(z[l]), h[l] = what stays of a[l]; before the first layer stands x.

    x (N, I), W[l] (H_l-1, H_l), b[l] (H_l,) -> z[l], a[l], h[l] (N, H_l), in place. 2*N*sum(H_l-1*H_l) flop.
    """
    last = len(W) - 1
    for l in range(last + 1):
        if l == 0:
            ops.affine(x, W[0], b[0], z[0], kinds[0] == RELU)  # (N, I)(I, H) -> (N, H)
        else:
            ops.affine(h[l - 1], W[l], b[l], z[l], kinds[l] == RELU)  # (N, H)(H, O) -> (N, O)
        if kinds[l] > RELU:
            ops.activate(kinds[l], z[l], a[l])  # (N, H)
        if drop.share > 0 and l < last:
            ops.dropout(a[l], drop.share, drop.key + np.uint64(l), drop.first, h[l])  # (N, H)


def deltas(ops: Ops, kinds: tuple[int, ...], W: Layers, z: Layers, a: Layers, dz: Layers, drop: Dropout) -> None:
    """dz[l-1] = (dz[l] W[l]^T) * f'(z[l-1]), from the last layer, whose dz is given, to the first; 0 for what was left
    out. A row of dz needs only its own row of a: rows may be split over threads or tiles.
    """
    for l in range(len(W) - 1, 0, -1):
        if kinds[l - 1] == RELU:
            ops.backprop_relu(dz[l], W[l], a[l - 1], dz[l - 1])  # (N, O)(O, H) * (N, H) -> (N, H)
        else:
            ops.backprop(kinds[l - 1], dz[l], W[l], z[l - 1], a[l - 1], dz[l - 1])  # (N, O)(O, H) * (N, H)
        if drop.share > 0:
            ops.dropout(dz[l - 1], drop.share, drop.key + np.uint64(l - 1), drop.first, dz[l - 1])  # (N, H)


def gradients(ops: Ops, x: Array, h: Layers, dz: Layers, dW: Layers, db: Layers, add: bool) -> None:
    """dW[l] = h[l-1]^T dz[l] and db[l] = column sums of dz[l]; with `add`, which the operation is told, added to what
    is there. An operation may also put a gradient to use at once, as the compiled update of a small batch does.

    A row of dW needs only its own column of h: columns may be split over threads.
    """
    ops.weight_gradient(x, dz[0], dW[0], db[0], add)  # (I, N)(N, H) -> (I, H)
    for l in range(1, len(dz)):
        ops.weight_gradient(h[l - 1], dz[l], dW[l], db[l], add)  # (H, N)(N, O) -> (H, O)


def loss(
    ops: Ops, kind: int, numbers: Array, z: Array, y: Array, weight: Array | None, scale: float, dz: Array,
    totals: Array,
) -> None:  # fmt: skip
    """dz = dLoss/dz * scale of the loss's `kind`, over the last layer's z (N, O); adds to totals [sum, right answers].

    y (N,) for cross entropy, else (N, O); weight (N,) of the rows, or None; numbers: see `Network.loss_numbers`.
    """
    if kind == SOFTMAX:
        ops.softmax_cross_entropy(z, y, scale, dz, totals, weight, numbers)  # (softmax(z) - onehot(y)) * scale
    else:
        ops.elementwise_loss(kind, z, y, scale, dz, totals, weight, numbers)  # (N, O)


class Units(NamedTuple):
    """What the layers make of some rows, one array (n, H_l) a layer."""

    z: Layers
    a: Layers
    h: Layers
    dz: Layers


def loss_and_gradients(
    ops: Ops, network: Network, numbers: Array, x: Array, y: Array, weight: Array | None, scale: float, W: Layers,
    b: Layers, units: Units, dW: Layers, db: Layers, totals: Array, add: bool, drop: Dropout,
) -> None:  # fmt: skip
    """One pass forward and back over the rows x (N, I), y; adds [sum of losses, right answers] to totals (2,).

    `scale` is 1 / (rows of the batch): the loss is the mean, so its gradient carries 1/n. The rows may be a part
    of the batch; `add` then gathers the gradients of its parts.
    """
    z, a, h, dz = units
    forward(ops, network.kinds, x, W, b, z, a, h, drop)
    loss(ops, network.loss_kind, numbers, a[-1], y, weight, scale, dz[-1], totals)
    deltas(ops, network.kinds, W, z, a, dz, drop)
    gradients(ops, x, h, dz, dW, db, add)


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
