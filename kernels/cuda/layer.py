"""Launches of layer.cu: biases, activations, their slopes and dropout."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .arrays import Array, expect
from .epoch import Epoch
from .launch import BLOCK, LANES, blocks
from .nvrtc import kernel
from .sums import Sums, slots


def add_bias(z: Array, b: Array, kind: int) -> None:
    """z = f(z + b), f the activation of that number. z (N, H) item, b (H,)."""
    (N, H), real = z.shape, b.dtype
    expect(z, z.dtype, N, H)
    expect(b, real, H)
    kernel("layer", "add_bias", real, z.dtype)(*blocks(N * H), (z, b, np.int32(kind), np.int64(N), np.int32(H)))


def add_last_bias(z: Array, b: Array, item: np.dtype) -> None:
    """z += b. z (N, O) real, b (O,); `item` is the type of the network's operands."""
    (N, O), real = z.shape, b.dtype
    expect(z, real, N, O)
    expect(b, real, O)
    kernel("layer", "add_last_bias", real, item)(*blocks(N * O), (z, b, np.int64(N), np.int32(O)))


def activate(kind: int, z: Array, a: Array, real: np.dtype) -> None:
    """a = f(z), f the activation of that number. z (N, H) item -> a (N, H), which may be z itself."""
    (N, H), item = z.shape, z.dtype
    expect(z, item, N, H)
    expect(a, item, N, H)
    kernel("layer", "activate", real, item)(*blocks(N * H), (z, a, np.int32(kind), np.int64(N), np.int32(H)))


def delta(d: Array, kind: int, z: Array, a: Array, sums: Sums) -> None:
    """d *= f'(z), the slope of the activation of that number, and the column sums of d. d, z, a (N, H) item."""
    (N, H), real = d.shape, sums.parts.dtype
    for array in (d, z, a):
        expect(array, d.dtype, N, H)
    grid = (-(-H // LANES), slots(N))
    arguments = (d, z, a, np.int32(kind), *sums.at(N, H), np.int64(N), np.int32(H))
    kernel("layer", "delta", real, d.dtype)(grid, BLOCK, arguments)


class Dropped(NamedTuple):
    """Which units a step leaves out; see `fastmlp.dropout`."""

    share: float
    epoch: Epoch  # at the step
    layer: int
    first: int  # place in the batch of the first row

    def arguments(self, real: np.dtype) -> tuple[Any, ...]:
        """As the kernels take them."""
        self.epoch.check()
        upscale, bar = real.type(1 / (1 - self.share)), np.uint64(self.share * 2**24)
        step = self.epoch.key, self.epoch.turn, np.int32(self.epoch.step)
        return upscale, bar, *step, np.int32(self.layer), np.int64(self.first)


def drop_units(a: Array, dropped: Dropped, out: Array, real: np.dtype) -> None:
    """out = a / (1 - share) where the unit stays in, else 0. a (N, H) item -> out (N, H), which may be a itself."""
    (N, H), item = a.shape, a.dtype
    expect(a, item, N, H)
    expect(out, item, N, H)
    arguments = (a, out, *dropped.arguments(real), np.int64(N), np.int32(H))
    kernel("layer", "drop_units", real, item)(*blocks(N * H), arguments)


def drop_deltas(d: Array, dropped: Dropped, sums: Sums) -> None:
    """d /= 1 - share where the unit stayed in, else 0, and the column sums of d. d (N, H) item."""
    (N, H), real = d.shape, sums.parts.dtype
    expect(d, d.dtype, N, H)
    arguments = (d, *dropped.arguments(real), *sums.at(N, H), np.int64(N), np.int32(H))
    kernel("layer", "drop_deltas", real, d.dtype)((-(-H // LANES), slots(N)), BLOCK, arguments)
