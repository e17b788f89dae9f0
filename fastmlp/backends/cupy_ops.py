"""The operations of `fastmlp.network` on a GPU: cuBLAS products, and kernels that fuse what stands between them.

They hold to the contract of `fastmlp.backends.base.Ops`, with three agreements that save passes over the data:

- x may be `Pixels`, whole numbers whose 1/255 enters the products that they take part in. Float16 holds them exactly.
- A delta is a `Delta`. Whatever writes it sums its columns too, in parts; `finish` adds the parts up to the gradient of
  the biases, and the losses to the totals. So db and totals, which the operations are given, are left alone.
- dz is not divided by the rows of the batch, which would push it towards float16's smallest numbers; the gradient is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastmlp.activations import IDENTITY, RELU
from fastmlp.backends.base import Array
from fastmlp.backends.numpy import PIXEL
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda.products import Products


class Pixels(NamedTuple):
    """Rows of whole numbers 0 .. 255 that mean 0 .. 1."""

    values: Array  # (N, I) item


class Delta(NamedTuple):
    """dz of a layer, and where the sums of its columns go."""

    values: Array  # (N, H) item
    sums: cuda.Sums


class StepKey(NamedTuple):
    """The key of the step at hand, which the GPU finds; `fastmlp.network` adds the layer."""

    epoch: cuda.Epoch
    layer: int = 0

    def __add__(self, layer: np.uint64) -> StepKey:  # type: ignore[override]
        """The key of a layer."""
        return StepKey(self.epoch, self.layer + int(layer))


@dataclass
class CupyOps:
    """The operations, at one precision, on the stream of their products."""

    products: Products
    share: float = 1.0  # 1 / (rows of the batch): the gradient is the mean's

    def affine(self, x: Array | Pixels, W: Array, b: Array, out: Array, relu: bool) -> None:
        """out = x W + b, then max(., 0) if relu. x (N, I), W (I, H) item, b (H,) real -> out (N, H).

        out is item, or real for the last layer: logits are not rounded.
        """
        values, alpha = scaled(x)
        self.products.multiply(False, False, values, W, out, alpha)  # (N, I)(I, H) -> (N, H)
        item = self.products.precision.item
        if out.dtype == item:
            cuda.add_bias(out, b, RELU if relu else IDENTITY)
        else:
            cuda.add_last_bias(out, b, item)

    def activate(self, kind: int, z: Array, a: Array) -> None:
        """a = f(z). z (N, H) -> a (N, H)."""
        cuda.activate(kind, z, a, self.products.precision.real)

    def dropout(self, a: Array | Delta, share: float, key: StepKey, first: int, out: Array | Delta) -> None:
        """out = a / (1 - share) where the unit stays in, else 0. a (N, H) -> out (N, H); of a delta in place."""
        dropped = cuda.Dropped(share, key.epoch, key.layer, first)
        if isinstance(a, Delta):
            cuda.drop_deltas(a.values, dropped, a.sums)
        else:
            cuda.drop_units(a, dropped, out, self.products.precision.real)

    def softmax_cross_entropy(
        self, z: Array, y: Array, scale: float, dz: Delta, totals: Array, weight: Array | None,
        numbers: Sequence[float],
    ) -> None:  # fmt: skip
        """dz = (softmax(z) - target) * scale. z (N, O), y, weight (N,) -> dz (N, O)."""
        smoothing, gamma, ceiling = map(float, numbers)
        cuda.softmax_cross_entropy(z, y, weight, (smoothing, gamma, ceiling), scale, dz.values, dz.sums)

    def elementwise_loss(
        self, kind: int, z: Array, y: Array, scale: float, dz: Delta, totals: Array, weight: Array | None,
        numbers: Array,
    ) -> None:  # fmt: skip
        """dz = dloss/dz * scale. z, y (N, O), weight (N,), numbers (O,) -> dz (N, O)."""
        cuda.elementwise_loss(kind, z, y, weight, numbers, scale, dz.values, dz.sums)

    def backprop_relu(self, dz: Delta, W: Array, a: Array, out: Delta) -> None:
        """out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H)."""
        self.backprop(RELU, dz, W, a, a, out)

    def backprop(self, kind: int, dz: Delta, W: Array, z: Array, a: Array, out: Delta) -> None:
        """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""
        self.products.multiply(False, True, dz.values, W, out.values)  # (N, O)(O, H) -> (N, H)
        cuda.delta(out.values, kind, z, a, out.sums)

    def weight_gradient(self, a: Array | Pixels, dz: Delta, dW: Array, db: Array, add: bool) -> None:
        """dW = a^T dz / rows, or added to dW. a (N, H), dz (N, O) -> dW (H, O)."""
        values, alpha = scaled(a)
        self.products.multiply(True, False, values, dz.values, dW, alpha * self.share, float(add))  # (H, N)(N, O)


def operand(x: Array, X: Array) -> Array | Pixels:
    """x (N, I), which are rows of X, as a product takes them."""
    return Pixels(x) if X.dtype == np.uint8 else x


def scaled(x: Array | Pixels) -> tuple[Array, float]:
    """The numbers of x, and what they are to be multiplied by."""
    return (x.values, PIXEL) if isinstance(x, Pixels) else (x, 1.0)
