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
RULES = (optimizers.sgd, optimizers.momentum, optimizers.nesterov, optimizers.adam)
sgd, momentum, nesterov, adam = map(compiled, RULES)


class Moves(NamedTuple):
    """How the parameters move."""

    rule: Any  # its place in RULES
    w: Any  # (P,)
    g: Any  # (threads, P)
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
def apply(moves, g, first, last, rate):
    """The optimizer's rule on parameters `first` to `last`, whose gradients are in g (P,)."""
    h = moves.h
    h = Step(rate, h.beta, h.rest, h.beta2, h.rest2, h.epsilon)
    w, g, s = moves.w[first:last], g[first:last], row_views(moves.s, first, last)  # loops from 0 on become vectors
    if moves.rule == 0:
        for i in range(len(w)):
            sgd(w, g, s, i, h)
    elif moves.rule == 1:
        for i in range(len(w)):
            momentum(w, g, s, i, h)
    elif moves.rule == 2:
        for i in range(len(w)):
            nesterov(w, g, s, i, h)
    else:
        for i in range(len(w)):
            adam(w, g, s, i, h)


@compiled
def weight_gradient(a, dz, W, b, how):
    """This thread's rows of a^T dz and its part of the column sums of dz, applied to W and b. a (N, H), dz (N, O)."""
    moves, g = how.moves, how.moves.g[0]
    H, O = W.shape
    start = (W.ctypes.data - moves.w.ctypes.data) // W.itemsize  # of W among all parameters
    dW = g[start : start + H * O].reshape(H, O)
    first, last = share(H, how.thread, how.threads, BLOCK)
    for row in range(first, last, BLOCK):
        end = min(row + BLOCK, last)
        ops.gradient_rows(a, dz, dW, row, end, False)
        apply(moves, g, start + row * O, start + end * O, how.rate)
    start += H * O  # biases follow their weights
    first, last = share(O, how.thread, how.threads, 16)
    ops.column_sums(dz, first, last, g[start : start + O], False)
    apply(moves, g, start + first, start + last, how.rate)


@compiled
def update(moves):
    """The optimizer's rule on all parameters."""
    apply(moves, moves.g[0], 0, len(moves.w), moves.rates[0])


update = kept(update.py_func, VERSION)
