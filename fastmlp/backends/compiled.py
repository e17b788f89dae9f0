"""`fastmlp.network` compiled by Numba, in the loops over tiles and batches that a team of threads runs.

A batch of many rows is worked through in tiles: each thread adds up a gradient of its own while a tile's numbers are
in its cache; the gradients are then summed and the parameters updated. A smaller batch takes phases: each thread owns
columns of the first layer, and has a share of the rows for the other layers; it updates the weights whose gradient it
has just made. docs/performance.md explains both.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import carray, types
from numba.extending import overload

from fastmlp import network
from fastmlp.activations import RELU
from fastmlp.backends import compiled_ops, compiled_update
from fastmlp.backends.compiled_update import BLOCK, LINE, VERSION, row_views, share
from fastmlp.backends.numpy import PIXEL
from fastmlp.dropout import NONE as KEEP_ALL
from fastmlp.dropout import Dropout
from fastmlp.kernels.cpu import csr, fused, ops, sparse
from fastmlp.kernels.cpu.cache import inner, kept
from fastmlp.kernels.cpu.call import as_pointer
from fastmlp.kernels.cpu.sparse import GROUP
from fastmlp.kernels.cpu.team import barrier, stopped

TILE = 224  # rows at a time, a multiple of the microkernel's: x, a and dz of a tile stay in the L2 cache


class Net(NamedTuple):
    """The layers of a network, and the transposes that carry deltas back.

    Weights seen as uint32, the same bits, ask for products of operands rounded to bfloat16; see `kernels.cpu.product`.
    """

    W: Any  # W[l] (fan_in, fan_out)
    b: Any  # b[l] (fan_out,)
    WT: Any  # WT[l] (fan_out, fan_in); WT[0] is empty, since nothing is carried back to the input
    kinds: Any  # of each layer's activation: 0 the identity, 1 ReLU, else the address of its C function
    loss: Any  # address of the loss's C function
    numbers: Any  # (3,) or (O,), see `fastmlp.network.Network.loss_numbers`


class Buffers(NamedTuple):
    """Rows on their way through the network."""

    x: Any  # (n, I)
    marked: Any  # x with the places of its non-zeros; None: no zeros are skipped; room for the lists of CSR rows
    z: Any  # z[l] (n, H_l); a[l] itself where the activation needs no z beside it
    a: Any  # a[l] (n, H_l)
    h: Any  # h[l] (n, H_l); a[l] itself where nothing is left out
    dz: Any  # dz[l] (n, H_l)


class Task(NamedTuple):
    """What all threads of a team share."""

    team: Any  # address of the team's array
    threads: Any
    net: Any  # Net
    X: Any  # (M, I), an array or `csr.CSR`
    y: Any  # (M,) int32, or (M, O)
    weight: Any  # (N,) in the order of visits, or None
    order: Any  # (N,) int64, the rows to use, or None: the first N
    N: Any
    dropout: Any  # share of the hidden units to leave out
    key: Any  # uint64, of the first step's dropout
    totals: Any  # (threads, 3) float64: sum of losses, right answers, penalties


forward, deltas, gradients = map(inner, (network.forward, network.deltas, network.gradients))


def take_rows(X, order, first, last, buffer):
    """Rows order[first:last] of X (M, I) as numbers for the first layer (n, I): in `buffer`, or where they lie."""


@overload(take_rows)
def _take_rows(X, order, first, last, buffer):
    pixel = PIXEL if X.dtype == types.uint8 else 1
    if order is types.none and X.dtype == buffer.dtype and X.layout == "C":

        def where_they_lie(X, order, first, last, buffer):
            start = as_pointer(X.ctypes.data + first * X.strides[0])  # X may be read-only, which is another type
            return carray(start, (last - first, X.shape[1]), X.dtype)

        return where_they_lie
    if order is types.none:

        def in_order(X, order, first, last, buffer):
            x = buffer[: last - first]
            fused.scale(X[first:last], x.dtype.type(pixel), x)
            return x

        return in_order

    def picked(X, order, first, last, buffer):
        x = buffer[: last - first]
        fused.gather(X, order[first:last], x.dtype.type(pixel), x)
        return x

    return picked


def mark_rows(X, order, first, last, x, bits):
    """Mark the non-zeros of rows order[first:last] of X (M, I), which are in x (n, I), in bits (n, words)."""


@overload(mark_rows)
def _mark_rows(X, order, first, last, x, bits):
    if X.dtype == types.uint8 and X.layout == "C":  # read where they come from: a register holds more of them
        return lambda X, order, first, last, x, bits: sparse.mark(X, order, first, last, bits)
    return lambda X, order, first, last, x, bits: sparse.mark(x, None, 0, last - first, bits)


def take(X, order, first, last, room, at):
    """Rows order[first:last] of X (M, I) in `room` from row `at` on, marked and listed for the forward product.

    Rows of CSR stay where they lie.
    """


@overload(take)
def _take(X, order, first, last, room, at):
    if not isinstance(X, types.Array):
        return lambda X, order, first, last, room, at: csr.Picked(X, order, first, last - first, room.marked)
    if isinstance(room.types[room.fields.index("marked")], types.NoneType):
        return lambda X, order, first, last, room, at: take_rows(X, order, first, last, room.x[at:])

    def marked(X, order, first, last, room, at):
        x = take_rows(X, order, first, last, room.x[at:])  # (n, I)
        all_rows = room.marked
        part = sparse.Marked(
            x, all_rows.bits[at : at + len(x)], all_rows.columns[at // GROUP :], all_rows.column_counts[at // GROUP :],
            all_rows.rows, all_rows.row_counts,
        )  # fmt: skip
        mark_rows(X, order, first, last, x, part.bits)
        sparse.list_columns(part, len(x))
        return part

    return marked


def taken(X, order, first, last, room):
    """Rows order[first:last] of X (M, I), the first in `room`, as `take` has left them there."""


@overload(taken)
def _taken(X, order, first, last, room):
    if not isinstance(X, types.Array):
        return lambda X, order, first, last, room: csr.Picked(X, order, first, last - first, room.marked)
    if isinstance(room.types[room.fields.index("marked")], types.NoneType):
        return lambda X, order, first, last, room: room.x[: last - first]

    def marked(X, order, first, last, room):
        m, n = room.marked, last - first
        return sparse.Marked(room.x[:n], m.bits, m.columns, m.column_counts, m.rows, m.row_counts)

    return marked


def list_for_gradient(x, thread, threads):
    """List this thread's share of the features for the weight gradient; an array needs no list."""


@overload(list_for_gradient)
def _list_for_gradient(x, thread, threads):
    if isinstance(x, types.Array):
        return lambda x, thread, threads: None
    if x.instance_class is csr.Picked:

        def columns(x, thread, threads):
            first, last = share(len(x.lists.ends), thread, threads, 1)
            csr.list_columns(x, first, last)

        return columns

    def listed(x, thread, threads):
        first, last = share(x.bits.shape[1], thread, threads, 1)
        sparse.list_rows(x, len(x.x), first, last)

    return listed


def fetch_ahead(X, index):
    """Ask for the rows of X (M, I) that `index` (n,) picks; those of CSR are short, and come when they are wanted."""


@overload(fetch_ahead)
def _fetch_ahead(X, index):
    if not isinstance(X, types.Array):
        return lambda X, index: None
    return lambda X, index: fused.fetch_ahead(X, index)


@inner
def take_labels(y, order, first, last):
    """The labels of rows order[first:last] -> (n,)."""
    if order is None:
        return y[first:last]
    return y[order[first:last]]


def take_weights(weight, first, last):
    """The weights of rows `first` to `last` in the order of visits -> (n,), or None."""


@overload(take_weights)
def _take_weights(weight, first, last):
    if weight is types.none:
        return lambda weight, first, last: None
    return lambda weight, first, last: weight[first:last]


@inner
def dropout_of(task, step, first):
    """What is left out of a step, from row `first` of its batch on."""
    return Dropout(task.dropout, task.key + (np.uint64(step) << np.uint64(16)), first)  # see `dropout.step_key`


@inner
def row_units(units, first, last):
    """z, a, h and dz of rows `first` to `last`."""
    return (
        row_views(units.z, first, last), row_views(units.a, first, last), row_views(units.h, first, last),
        row_views(units.dz, first, last),
    )  # fmt: skip


@inner
def transpose(net, thread, threads):
    """This thread's share of the transposes, from the weights as they stand."""
    for l in range(1, len(net.W)):
        first, last = share(net.W[l].shape[0], thread, threads, BLOCK)
        ops.transpose_rows(net.W[l], first, last, net.WT[l])


@inner
def visit(task, thread, first, last, scale, x, units, drop):
    """Forward, loss and deltas of rows `first` to `last`, which are in x (n, I)."""
    net, (z, a, h, dz) = task.net, units
    forward(compiled_ops, net.kinds, x, net.W, net.b, z, a, h, drop)
    y, weight = take_labels(task.y, task.order, first, last), take_weights(task.weight, first, last)
    compiled_ops.loss(net.loss, a[-1], y, weight, net.numbers, scale, dz[-1], task.totals[thread])
    deltas(compiled_ops, net.kinds, net.WT, z, a, dz, drop)


class Panel(NamedTuple):
    """The columns of the first layer that are one thread's own while it takes small steps.

    They lie apart from the others': a core that fetches ahead in one row of W[0] would take the lines of its neighbour.
    """

    first: Any
    last: Any
    moves: Any  # Moves of (I + 1) * (last - first) parameters: the columns of W[0], then those of b[0]


def forward_rest(net, z, a, h, drop):
    """`forward` from the first layer's z on."""


@overload(forward_rest)
def _forward_rest(net, z, a, h, drop):
    if a.count == 1:
        return lambda net, z, a, h, drop: None

    def rest(net, z, a, h, drop):
        if net.kinds[0] > RELU:
            compiled_ops.activate(net.kinds[0], z[0], a[0])
        if drop.share > 0:
            compiled_ops.dropout(a[0], drop.share, drop.key, drop.first, h[0])
        after = Dropout(drop.share, drop.key + np.uint64(1), drop.first)
        forward(compiled_ops, net.kinds[1:], h[0], net.W[1:], net.b[1:], z[1:], a[1:], h[1:], after)

    return rest


def move_rest(net, h, dz, how):
    """`gradients` from the second layer on, applied at once."""


@overload(move_rest)
def _move_rest(net, h, dz, how):
    if h.count == 1:
        return lambda net, h, dz, how: None
    return lambda net, h, dz, how: gradients(compiled_update, h[0], h[1:], dz[1:], net.W[1:], net.b[1:], how)


@inner
def visit_rest(task, thread, first, last, scale, units, drop):
    """Forward from the first layer's z on, loss and deltas of rows `first` to `last`. units: see `row_units`."""
    net, (z, a, h, dz) = task.net, units
    forward_rest(net, z, a, h, drop)
    y, weight = take_labels(task.y, task.order, first, last), take_weights(task.weight, first, last)
    compiled_ops.loss(net.loss, a[-1], y, weight, net.numbers, scale, dz[-1], task.totals[thread])
    deltas(compiled_ops, net.kinds, net.WT, z, a, dz, drop)


@inner
def shorten(task, moves, thread, first, last, phase):
    """Make the gradient moves.g[0] (P,) at most moves.longest long; this thread's part is `first` to `last`.

    False if the team shall stop.
    """
    g, squares = moves.g[0], 0.0
    for i in range(first, last):
        squares += np.float64(g[i]) * np.float64(g[i])
    moves.norms[thread] = squares
    if not barrier(task.team, task.threads, phase):
        return False
    squares = 0.0
    for other in range(task.threads):
        squares += moves.norms[other]
    if squares > moves.longest**2:
        factor = g.dtype.type(moves.longest / np.sqrt(squares))
        for i in range(first, last):
            g[i] *= factor
    return True


@inner
def epoch_in_tiles(thread, task, moves, tile, dW, db, batch_size):
    """One thread's part of an epoch of large batches; dW and db are views of moves.g[thread]."""
    g, phase = moves.g[0], 0
    for step in range(moves.h.shape[1]):
        start = step * batch_size
        stop = min(start + batch_size, task.N)
        scale = 1 / (stop - start)
        transpose(task.net, thread, task.threads)
        moves.g[thread, :] = 0
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        first, last = share(stop - start, thread, task.threads, BLOCK)
        for lo in range(start + first, start + last, TILE):
            if stopped(task.team):
                return
            hi = min(lo + TILE, start + last)
            x = take(task.X, task.order, lo, hi, tile, 0)
            list_for_gradient(x, 0, 1)
            units = row_units(tile, 0, hi - lo)
            visit(task, thread, lo, hi, scale, x, units, dropout_of(task, step, lo - start))
            gradients(compiled_ops, x, units[2], units[3], dW, db, True)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        first, last = share(len(moves.w), thread, task.threads, LINE // g.itemsize)
        for other in range(1, task.threads):
            for i in range(first, last):
                g[i] += moves.g[other, i]
        if moves.longest > 0:
            phase += 1
            if not shorten(task, moves, thread, first, last, phase):
                return
        compiled_update.apply_share(moves, task.net, step, first, last, stop - start, task.totals[thread])
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return


@inner
def epoch_in_phases(thread, task, moves, panel, batch, batch_size, sums):
    """One thread's part of one or several epochs of small batches, whose buffers all threads share.

    What the thread adds up in each epoch ends in sums (threads, epochs, 3).
    """
    net, phase, steps = task.net, 0, moves.h.shape[1] // max(1, sums.shape[1])
    transpose(net, thread, task.threads)
    I = net.W[0].shape[0]
    columns = panel.moves.w.reshape(I + 1, panel.last - panel.first)
    W, b = columns[:I].view(net.W[0].dtype), columns[I]
    for step in range(moves.h.shape[1]):
        epoch = step // steps
        start = epoch * task.N + (step - epoch * steps) * batch_size  # of all rows that are visited
        n = min(batch_size, (epoch + 1) * task.N - start)
        first, last = share(n, thread, task.threads, GROUP)
        z, _, h, dz = row_units(batch, 0, n)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        take(task.X, task.order, start + first, start + last, batch, first)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        x = taken(task.X, task.order, start, start + n, batch)
        list_for_gradient(x, thread, task.threads)
        fetch_ahead(task.X, task.order[start + batch_size + first : start + batch_size + last])
        ops.affine(x, W, b, z[0][:, panel.first : panel.last], net.kinds[0] == RELU)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        scale = 1 / n
        mine = row_units(batch, first, last)
        visit_rest(task, thread, start + first, start + last, scale, mine, dropout_of(task, step, first))
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        total = task.totals[thread]
        alone = compiled_update.Share(panel.moves, step, n, total, 0, 1)
        compiled_update.weight_gradient(x, dz[0][:, panel.first : panel.last], W, b, alone)
        move_rest(net, h, dz, compiled_update.Share(moves, step, n, total, thread, task.threads))
        transpose(net, thread, task.threads)
        if step + 1 == (epoch + 1) * steps:
            for i in range(3):
                sums[thread, epoch, i] = total[i]
                total[i] = 0


@inner
def evaluate(thread, task, tile):
    """One thread's part of the loss and the right answers over all rows."""
    first, last = share(task.N, thread, task.threads, BLOCK)
    for lo in range(first, last, TILE):
        if stopped(task.team):
            return
        hi = min(lo + TILE, last)
        z, a, _, dz = row_units(tile, 0, hi - lo)
        x = take(task.X, task.order, lo, hi, tile, 0)
        forward(compiled_ops, task.net.kinds, x, task.net.W, task.net.b, z, a, a, KEEP_ALL)
        y, weight = take_labels(task.y, task.order, lo, hi), take_weights(task.weight, lo, hi)
        compiled_ops.loss(task.net.loss, a[-1], y, weight, task.net.numbers, 1.0, dz[-1], task.totals[thread])


@inner
def logits(thread, threads, team, net, X, tile, z):
    """One thread's part of the last layer's z (N, O) of rows X (N, I)."""
    first, last = share(len(z), thread, threads, BLOCK)
    for lo in range(first, last, TILE):
        if stopped(team):
            return
        hi = min(lo + TILE, last)
        units_z, a, _, _ = row_units(tile, 0, hi - lo)
        x = take(X, None, lo, hi, tile, 0)
        forward(compiled_ops, net.kinds, x, net.W, net.b, units_z, a, a, KEEP_ALL)
        for n in range(hi - lo):
            for o in range(z.shape[1]):
                z[lo + n, o] = a[-1][n, o]


epoch_in_tiles, epoch_in_phases, evaluate, logits = (
    kept(function.py_func, VERSION) for function in (epoch_in_tiles, epoch_in_phases, evaluate, logits)
)
