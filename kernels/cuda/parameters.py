"""Launches of update.cu: the last sums of a step, its penalty and its update."""

from __future__ import annotations

import numpy as np

from .arrays import Array, expect
from .epoch import Epoch
from .launch import LANES, THREADS, flat, launch_soon
from .nvrtc import kernel

SHARERS = 32  # threads that share a column
EACH = 4  # parameters of a thread of `update`
LENGTHS = 64  # shares of a sum of squares
RULES = ("sgd", "momentum", "nesterov", "adam", "adamw", "heavy_ball", "heavy_ball_nesterov")  # as update.cu has them


def finish(
    parts: Array, where: Array, scale: float, g: Array, epoch: Epoch, item: np.dtype, *, gradient: bool = True
) -> None:
    """g[where] = scale * the column sums of parts, where a `gradient` is there; the last two go to the step's totals.

    parts (K, C) real, where (C - 2,) int32, g (P,) real.
    """
    (K, C), real = parts.shape, parts.dtype
    epoch.check()
    expect(parts, real, K, C)
    expect(where, np.int32, C - 2)
    expect(g, real, len(g))
    blocks = -(-(C - 2) // LANES) if gradient else 0  # and one for the totals
    step = epoch.totals, epoch.turn, np.int32(epoch.step)
    arguments = (parts, where, real.type(scale), g, *step, np.int32(K), np.int32(C))
    kernel("update", "finish", real, item)((blocks + 1,), (LANES, SHARERS), arguments)


def squares(v: Array, ends: Array, out: Array, item: np.dtype, *, weights: bool) -> None:
    """out = sums of squares of v, or of its `weights` alone.

    v (P,) real, ends (2 L,) int64, where the weights and then the biases of each layer end -> out (LENGTHS,) real.
    """
    P, real = len(v), v.dtype
    expect(v, real, P)
    expect(ends, np.int64, len(ends))
    expect(out, real, LENGTHS)
    arguments = (v, ends, np.int32(len(ends) if weights else 0), out, np.int64(P))
    kernel("update", "squares", real, item)((LENGTHS,), (THREADS,), arguments)


def add_penalty(parts: Array, epoch: Epoch, rows: int, item: np.dtype) -> None:
    """The step's third total += rows / 2 * l2 of its numbers * sum of parts. parts (LENGTHS,) real."""
    real = parts.dtype
    epoch.check()
    expect(parts, real, LENGTHS)
    step = epoch.table, epoch.totals, epoch.turn, np.int32(epoch.step)
    kernel("update", "add_penalty", real, item)((1,), (1,), (parts, *step, np.float64(rows), np.int32(LENGTHS)))


def update(
    rule: str, w: Array, g: Array, s: Array, copy: Array, epoch: Epoch, ends: Array, parts: Array, where: Array,
    end: int, scale: float,
) -> None:  # fmt: skip
    """The optimizer's `rule`, called by its name, over all parameters, by the step's numbers; copy = w as item.

    The gradients of the weights before the `end`-th parameter are in g, those of the parameters `where` are `scale` *
    the column sums of parts; the sums of the last two columns go to the step's totals.
    w, g (P,), s (S, P), parts (K, C) real, where (C - 2,) int32; ends (2 L,) int64: see `squares`.
    """
    (K, C), P, real = parts.shape, len(w), w.dtype
    expect_step(w, g, s, copy, epoch, ends)
    expect(parts, real, K, C)
    expect(where, np.int32, C - 2)
    arguments = (
        np.int32(RULES.index(rule)), w, g, s, copy, epoch.table, epoch.turn, np.int32(epoch.step), ends,
        np.int32(len(ends)), np.int64(end), parts, where, real.type(scale), epoch.totals, np.int32(K), np.int32(C),
        np.int64(P),
    )  # fmt: skip
    blocks = -(-(C - 2) // LANES) + 1 + -(-end // (EACH * LANES * SHARERS))
    launch_soon(kernel("update", "update", real, copy.dtype), (blocks,), (LANES, SHARERS), arguments)


def update_clipped(
    rule: str, w: Array, g: Array, s: Array, copy: Array, epoch: Epoch, ends: Array, lengths: Array, longest: float
) -> None:
    """As `update`, with all gradients in g, which is let through up to the length `longest`.

    lengths (LENGTHS,) real: the sums of its squares.
    """
    P, real = len(w), w.dtype
    expect_step(w, g, s, copy, epoch, ends)
    expect(lengths, real, LENGTHS)
    arguments = (
        np.int32(RULES.index(rule)), w, g, s, copy, epoch.table, epoch.turn, np.int32(epoch.step), ends,
        np.int32(len(ends)), lengths, real.type(longest), np.int32(LENGTHS), np.int64(P),
    )  # fmt: skip
    kernel("update", "update_clipped", real, copy.dtype)(*flat(P), arguments)


def expect_step(w: Array, g: Array, s: Array, copy: Array, epoch: Epoch, ends: Array) -> None:
    """Check what moves. Raises ValueError if it is not what the kernels will take it for."""
    P, real = len(w), w.dtype
    epoch.check()
    expect(w, real, P)
    expect(g, real, P)
    expect(s, real, len(s), P)
    expect(copy, copy.dtype, P)
    expect(ends, np.int64, len(ends))


def convert(w: Array, copy: Array) -> None:
    """copy = w. w (P,) real -> copy (P,) item."""
    P, real = len(w), w.dtype
    expect(w, real, P)
    expect(copy, copy.dtype, P)
    kernel("update", "convert", real, copy.dtype)(*flat(P), (w, copy, np.int64(P)))
