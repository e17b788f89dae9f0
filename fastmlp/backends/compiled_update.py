"""The operation that takes a gradient and moves the parameters with it at once, for `fastmlp.network.gradients`.

This module is handed to the compiled maths as its `ops`: a module, since a tuple of functions could not be kept in
Numba's compile cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from numba.extending import overload

from fastmlp import network, optimizers
from fastmlp.kernels.cpu import ops
from fastmlp.kernels.cpu.cache import KERNELS, compiled, fingerprint, kept
from fastmlp.optimizers import Step

# Of all sources that end up in compiled code, for the names in the compile cache.
VERSION = KERNELS + fingerprint(Path(__file__).parent) + fingerprint(Path(network.__file__).parent)
BLOCK = 28  # features whose gradient is made and applied at a time: dense blocks have 14 rows, those over a list 4
LINE = 64  # bytes of a cache line: threads that write to the same line hold each other up
RULES = tuple(optimizer.rule for optimizer in optimizers.OPTIMIZERS.values())
sgd, momentum, nesterov, adam, adamw, heavy_ball, heavy_ball_nesterov = map(compiled, RULES)


class Moves(NamedTuple):
    """How the parameters move."""

    rule: Any  # its place in RULES
    w: Any  # (P,)
    g: Any  # (threads, P) gradients, or room for a block of one
    s: Any  # two arrays of state, (P,), or empty where the rule has none
    h: Any  # Step; its rate is replaced by each step's own
    rates: Any  # (steps,)


class Share(NamedTuple):
    """Where a small batch's gradients go: into the parameters at once, each thread its part."""

    moves: Any
    rate: Any
    thread: Any
    threads: Any


@compiled
def share(n, thread, threads, unit):
    """The part of n things that a thread takes, as (first, last); parts begin at multiples of `unit`."""
    units = (n + unit - 1) // unit
    return min(n, units * thread // threads * unit), min(n, units * (thread + 1) // threads * unit)


def row_views(layers, first, last):
    """Entries or rows `first` to `last` of each array of a tuple."""


@overload(row_views)
def _row_views(layers, first, last):
    # Compiled code cannot loop over a tuple to make another: the loop is written out for the length at hand.
    views = "".join(f"layers[{l}][first:last], " for l in range(len(layers)))
    written: dict[str, Any] = {}
    exec(f"def row_views(layers, first, last): return ({views})", written)
    return written["row_views"]


@compiled
def apply(moves, g, start, rate):
    """The optimizer's rule on the parameters from `start` on whose gradients are in g (n,)."""
    h = moves.h
    h = Step(rate, h.l2, h.shrink, h.beta, h.rest, h.beta2, h.rest2, h.epsilon)
    w, s = moves.w[start : start + len(g)], row_views(moves.s, start, start + len(g))  # loops from 0 on become vectors
    if moves.rule == 0:
        for i in range(len(w)):
            sgd(w, g, s, i, h)
    elif moves.rule == 1:
        for i in range(len(w)):
            momentum(w, g, s, i, h)
    elif moves.rule == 2:
        for i in range(len(w)):
            nesterov(w, g, s, i, h)
    elif moves.rule == 3:
        for i in range(len(w)):
            adam(w, g, s, i, h)
    elif moves.rule == 4:
        for i in range(len(w)):
            adamw(w, g, s, i, h)
    elif moves.rule == 5:
        for i in range(len(w)):
            heavy_ball(w, g, s, i, h)
    else:
        for i in range(len(w)):
            heavy_ball_nesterov(w, g, s, i, h)


@compiled
def weight_gradient(a, dz, W, b, how):
    """This thread's rows of a^T dz and its part of the column sums of dz, applied to W and b. a (N, H), dz (N, O)."""
    moves, O = how.moves, W.shape[1]
    first, last = share(W.shape[0], how.thread, how.threads, BLOCK)
    start = place(W, moves.w)
    for row in range(first, last, BLOCK):
        end = min(row + BLOCK, last)
        g = moves.g[how.thread, : (end - row) * O]  # in this core's L1 cache
        ops.gradient_rows(a, dz, g.reshape(end - row, O), row, end, False)
        apply(moves, g, start + row * O, how.rate)
    first, last = share(O, how.thread, how.threads, LINE // W.itemsize)
    g = moves.g[how.thread, : last - first]
    ops.column_sums(dz, first, last, g, False)
    apply(moves, g, place(b, moves.w) + first, how.rate)


@compiled
def place(part, w):
    """Where a view of the parameters w (P,) begins among them."""
    return (part.ctypes.data - w.ctypes.data) // w.itemsize


@compiled
def update(moves):
    """The optimizer's rule on all parameters."""
    apply(moves, moves.g[0], 0, moves.rates[0])


update = kept(update.py_func, VERSION)
