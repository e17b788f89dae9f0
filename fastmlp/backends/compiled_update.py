"""The operation that takes a gradient and moves the parameters with it at once, for `fastmlp.network.gradients`.

This module is handed to the compiled maths as its `ops`: a module, since a tuple of functions could not be kept in
Numba's compile cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from fastmlp import network
from fastmlp.kernels.cpu import ops
from fastmlp.kernels.cpu.cache import KERNELS, compiled, fingerprint, kept, overload
from fastmlp.kernels.cpu.call import array_at, call6
from fastmlp.kernels.cpu.reductions import squares_at
from fastmlp.optimizers import Step

# Of all sources that end up in compiled code, for the names in the compile cache.
VERSION = KERNELS + fingerprint(Path(__file__).parent) + fingerprint(Path(network.__file__).parent)
BLOCK = 28  # features whose gradient is made and applied at a time: dense blocks have 14 rows, those over a list 4
L2 = Step._fields.index("l2")
LINE = 64  # bytes of a cache line: threads that write to the same line hold each other up


class Moves(NamedTuple):
    """How the parameters move."""

    rule: Any  # address of the rule, see `elements.rule`; 0 moves nothing
    w: Any  # (P,)
    g: Any  # (threads, P) gradients, or room for a block of one
    s: Any  # two arrays of state, (P,), or empty where the rule has none
    h: Any  # (2, steps, 8) the numbers of each step, `optimizers.Step`: for weights, for biases
    longest: Any  # gradient let through; 0 lets all
    norms: Any  # (threads,) float64, squares of each thread's part of a gradient


class Share(NamedTuple):
    """Where a small batch's gradients go: into the parameters at once, each thread its part."""

    moves: Any
    step: Any
    rows: Any  # of the batch
    total: Any  # (3,) float64; the penalty gathers in the last
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
def apply(moves, g, start, h):
    """The optimizer's rule, with a step's numbers h (8,), on the parameters from `start` on. g (n,)."""
    if moves.rule:
        w, s, s2 = moves.w[start:], moves.s[0][start:], moves.s[1][start:]
        call6(moves.rule, w.ctypes.data, g.ctypes.data, s.ctypes.data, s2.ctypes.data, len(g), h.ctypes.data)


@compiled
def add_penalty(moves, start, count, h, rows, total):
    """Add to total[2] what the L2 penalty costs on `count` weights from `start` on, over the rows of the batch."""
    if h[L2] > 0:
        squares = squares_at(moves.w, moves.w.ctypes.data + start * moves.w.itemsize, count)
        total[2] += 0.5 * h[L2] * rows * squares


@compiled
def weight_gradient(a, dz, W, b, how):
    """This thread's rows of a^T dz and its part of the column sums of dz, applied to W and b. a (N, H), dz (N, O)."""
    moves, O = how.moves, W.shape[1]
    first, last = share(W.shape[0], how.thread, how.threads, BLOCK)
    start = place(W, moves.w)
    for row in range(first, last, BLOCK):
        end = min(row + BLOCK, last)
        g = moves.g[how.thread, : (end - row) * O]  # in this core's L1 cache
        ops.gradient_rows(a, dz, array_at(g.ctypes.data, (end - row, O), W.dtype), row, end, False)
        h = moves.h[0, how.step]
        add_penalty(moves, start + row * O, len(g), h, how.rows, how.total)
        apply(moves, g, start + row * O, h)
    first, last = share(O, how.thread, how.threads, LINE // W.itemsize)
    g = moves.g[how.thread, : last - first]
    ops.column_sums(dz, first, last, g, False)
    apply(moves, g, place(b, moves.w) + first, moves.h[1, how.step])


@compiled
def place(part, w):
    """Where a view of the parameters w (P,) begins among them."""
    return (part.ctypes.data - w.ctypes.data) // w.itemsize


@compiled
def apply_share(moves, g, net, step, first, last, rows, total):
    """The optimizer's rule on the parameters `first` to `last`, whose gradients are in g (P,)."""
    at = 0
    for l in range(len(net.W)):
        for part in range(2):
            count = net.b[l].size if part else net.W[l].size
            start, stop, h = max(first, at), min(last, at + count), moves.h[part, step]
            if start < stop:
                add_penalty(moves, start, stop - start, h, rows, total)
                apply(moves, g[start:stop], start, h)
            at += count


@compiled
def update(moves):
    """The optimizer's rule on all parameters."""
    apply(moves, moves.g[0], 0, moves.h[0, 0])


update = kept(update.py_func, VERSION)
