"""The operations of `fastmlp.network` as calls of kernels, and what compiled code is told of the rules of elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fastmlp.activations import ACTIVATIONS, IDENTITY, RELU
from fastmlp.backends import compiled_ops, compiled_update, elements, numpy
from fastmlp.backends.base import Ops
from fastmlp.backends.numpy import PIXEL, Index
from fastmlp.kernels.cpu import fused
from fastmlp.kernels.cpu.cache import for_python
from fastmlp.kernels.cpu.product import publish
from fastmlp.losses import NAMES, SOFTMAX
from fastmlp.optimizers import Step

call = for_python(
    fused.gather, fused.scale, fused.softmax_cross_entropy, compiled_ops.affine, compiled_ops.activate,
    compiled_ops.dropout, compiled_ops.loss, compiled_ops.backprop_relu, compiled_ops.backprop,
    compiled_ops.weight_gradient,
)  # fmt: skip


def rows(X: np.ndarray, index: Index, out: np.ndarray) -> np.ndarray:
    """The rows of X (M, I) that `index` picks, pixels scaled to 0 .. 1 -> x (N, I): out, or a view of X."""
    pixel = out.dtype.type(PIXEL if X.dtype == np.uint8 else 1)
    if not isinstance(index, slice):
        call.gather(X, index, pixel, out)
    elif X.dtype == np.uint8:
        call.scale(X[index], pixel, out)
    else:
        return X[index]  # (N, I), no copy
    return out


def affine(x: np.ndarray, W: np.ndarray, b: np.ndarray, out: np.ndarray, relu: bool) -> None:
    """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""
    publish(out.dtype.name)
    call.affine(x, W, b, out, relu)


def softmax_cross_entropy(
    z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray, weight: np.ndarray | None = None,
    numbers: Sequence[float] | np.ndarray = (0.0, 0.0, 0.0),
) -> None:  # fmt: skip
    """dz = (softmax(z) - target) * scale; totals += [sum of losses, right answers]. z, dz (N, O), y, weight (N,)."""
    numbers, weight = np.array(numbers, z.dtype), z[:0, 0] if weight is None else weight
    call.softmax_cross_entropy(z, y, z.dtype.type(scale), dz, totals, weight, numbers)


def activate(kind: int, z: np.ndarray, a: np.ndarray) -> None:
    """a = f(z). z (N, H) -> a (N, H)."""
    call.activate(elements.activation(list(ACTIVATIONS)[kind], z.dtype), z, a)


def elementwise_loss(
    kind: int, z: np.ndarray, y: np.ndarray, scale: float, dz: np.ndarray, totals: np.ndarray,
    weight: np.ndarray | None, numbers: np.ndarray,
) -> None:  # fmt: skip
    """dz = dloss/dz * scale; totals += [sum of losses, right answers]. z, y, dz (N, O), weight (N,), numbers (O,)."""
    call.loss(loss_address(kind, z.dtype), z, y, weight, numbers, scale, dz, totals)


def backprop_relu(dz: np.ndarray, W: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
    publish(out.dtype.name)
    call.backprop_relu(dz, W, a, out)


def backprop(kind: int, dz: np.ndarray, W: np.ndarray, z: np.ndarray, a: np.ndarray, out: np.ndarray) -> None:
    """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""
    publish(out.dtype.name)
    address = 0 if kind == IDENTITY else elements.activation(list(ACTIVATIONS)[kind], z.dtype)
    call.backprop(address, dz, W, z, a, out)


def weight_gradient(a: np.ndarray, dz: np.ndarray, dW: np.ndarray, db: np.ndarray, add: bool) -> None:
    """dW = a^T dz, db = column sums of dz, or added to what is there. a (N, H), dz (N, O) -> dW (H, O), db (O,)."""
    publish(dW.dtype.name)
    call.weight_gradient(a, dz, dW, db, add)


def update(rule: Callable[..., None], w: np.ndarray, g: np.ndarray, s: np.ndarray, h: Step) -> None:
    """The rule over all parameters in one pass. w (P,), g (P,), s (S, P)."""
    numbers = np.array([[h]], w.dtype)  # (1, 1, 8)
    compiled_update.update(moves_of(elements.rule(rule.__name__, w.dtype), w, g[None], s, numbers))


def dropout(a: np.ndarray, share: float, key: np.uint64, first: int, out: np.ndarray) -> None:
    """out = a / (1 - share) where the unit stays in, else 0. a (N, H) -> out (N, H)."""
    elements.publish_dropout(a.dtype)
    call.dropout(a, share, key, first, out)


def activation_address(kind: int, dtype: np.dtype) -> int:
    """What compiled code knows an activation by: the identity and ReLU by their numbers, others by address."""
    return kind if kind in (IDENTITY, RELU) else elements.activation(list(ACTIVATIONS)[kind], dtype)


def loss_address(kind: int, dtype: np.dtype) -> int:
    """What compiled code knows a loss by: the address of its C function."""
    return elements.cross_entropy(dtype) if kind == SOFTMAX else elements.elementwise_loss(NAMES[kind], dtype)


def moves_of(
    rule: int, w: np.ndarray, g: np.ndarray, s: Iterable[np.ndarray], h: np.ndarray, clip: float = 0.0
) -> compiled_update.Moves:
    """What compiled code takes to move the parameters. w (P,), g (threads, P), s (S, P), h (1 or 2, steps, 8)."""
    states = (*s, w[:0], w[:0])[:2]  # rules keep two arrays at most
    return compiled_update.Moves(rule, w, g, states, h, clip, np.zeros(len(g)))


OPS = Ops(
    rows, affine, activate, dropout, softmax_cross_entropy, elementwise_loss, backprop_relu, backprop,
    weight_gradient, update, numpy.add_squares, numpy.clip,
)  # fmt: skip
