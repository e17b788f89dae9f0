"""`fastmlp.network` compiled by Numba, in the loops over tiles and batches that a team of threads runs.

A batch of many rows is worked through in tiles: each thread adds up a gradient of its own while a tile's numbers are
in its cache; the gradients are then summed and the parameters updated. A smaller batch takes two phases: first its
rows are split over the threads, as far as dz; then its features, each thread updating the weights whose gradient it
has just made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numba import carray, types
from numba.extending import intrinsic, overload

from fastmlp import network
from fastmlp.backends import compiled_update
from fastmlp.backends.compiled_update import BLOCK, LINE, VERSION, row_views, share
from fastmlp.backends.numpy import PIXEL
from fastmlp.kernels.cpu import fused, ops, sparse
from fastmlp.kernels.cpu.cache import compiled, kept
from fastmlp.kernels.cpu.sparse import GROUP
from fastmlp.kernels.cpu.team import barrier, stopped

TILE = 224  # rows at a time, a multiple of the microkernel's: x, a and dz of a tile stay in the L2 cache


class Net(NamedTuple):
    """The layers of a network, and the transposes that carry deltas back."""

    W: Any  # W[l] (fan_in, fan_out)
    b: Any  # b[l] (fan_out,)
    WT: Any  # WT[l] (fan_out, fan_in); WT[0] is empty, since nothing is carried back to the input


class Buffers(NamedTuple):
    """Rows on their way through the network."""

    x: Any  # (n, I)
    marked: Any  # x with the places of its non-zeros, or None: no zeros are skipped
    a: Any  # a[l] (n, H_l)
    dz: Any  # dz[l] (n, H_l)


class Task(NamedTuple):
    """What all threads of a team share."""

    team: Any  # address of the team's array
    threads: Any
    net: Any  # Net
    X: Any  # (M, I)
    y: Any  # (M,) int32
    order: Any  # (N,) int64, the rows to use, or None: the first N
    N: Any
    totals: Any  # (threads, 2) float64: sum of losses, right answers


forward, deltas, gradients = map(compiled, (network.forward, network.deltas, network.gradients))


@intrinsic
def as_pointer(typingctx, address):
    """An address held in an integer, as a pointer that `numba.carray` takes."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


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
    """Rows order[first:last] of X (M, I) in `room` from row `at` on, marked and listed for the forward product."""


@overload(take)
def _take(X, order, first, last, room, at):
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


def taken(room, n):
    """The first n rows of `room`, as `take` has left them."""


@overload(taken)
def _taken(room, n):
    if isinstance(room.types[room.fields.index("marked")], types.NoneType):
        return lambda room, n: room.x[:n]

    def marked(room, n):
        m = room.marked
        return sparse.Marked(room.x[:n], m.bits, m.columns, m.column_counts, m.rows, m.row_counts)

    return marked


def list_for_gradient(x, thread, threads):
    """List this thread's share of the features of marked rows for the weight gradient; an array needs no list."""


@overload(list_for_gradient)
def _list_for_gradient(x, thread, threads):
    if isinstance(x, types.Array):
        return lambda x, thread, threads: None

    def listed(x, thread, threads):
        first, last = share(x.bits.shape[1], thread, threads, 1)
        sparse.list_rows(x, len(x.x), first, last)

    return listed


@compiled
def take_labels(y, order, first, last):
    """The labels of rows order[first:last] -> (n,)."""
    if order is None:
        return y[first:last]
    return y[order[first:last]]


@compiled
def transpose(net, thread, threads):
    """This thread's share of the transposes, from the weights as they stand."""
    for l in range(1, len(net.W)):
        first, last = share(net.W[l].shape[0], thread, threads, BLOCK)
        ops.transpose_rows(net.W[l], first, last, net.WT[l])


@compiled
def visit(task, thread, first, last, scale, x, a, dz):
    """Forward, loss and deltas of rows `first` to `last`, which are in x (n, I)."""
    forward(ops, x, task.net.W, task.net.b, a)
    y = take_labels(task.y, task.order, first, last)
    fused.softmax_cross_entropy(a[-1], y, scale, dz[-1], task.totals[thread])
    deltas(ops, task.net.WT, a, dz)


class Panel(NamedTuple):
    """The columns of the first layer that are one thread's own while it takes small steps.

    They lie apart from the others': a core that fetches ahead in one row of W[0] would take the lines of its neighbour.
    """

    first: Any
    last: Any
    moves: Any  # Moves of (I + 1) * (last - first) parameters: the columns of W[0], then those of b[0]


@compiled
def exchange(flat, H, panel, part, back):
    """Copy a panel's columns from all parameters, or one of their states, flat (P,), to part, or back."""
    if len(part):
        columns = part.reshape(-1, panel.last - panel.first)  # (I + 1, last - first)
        whole = flat[: len(columns) * H].reshape(len(columns), H)[:, panel.first : panel.last]
        if back:
            whole[:] = columns
        else:
            columns[:] = whole


@compiled
def exchange_all(moves, H, panel, back):
    """`exchange` for the parameters and their state."""
    exchange(moves.w, H, panel, panel.moves.w, back)
    exchange(moves.s[0], H, panel, panel.moves.s[0], back)
    exchange(moves.s[1], H, panel, panel.moves.s[1], back)


def forward_rest(net, a):
    """`forward` from the second layer on."""


@overload(forward_rest)
def _forward_rest(net, a):
    if a.count == 1:
        return lambda net, a: None
    return lambda net, a: forward(ops, a[0], net.W[1:], net.b[1:], a[1:])


def move_rest(net, a, dz, how):
    """`gradients` from the second layer on, applied at once."""


@overload(move_rest)
def _move_rest(net, a, dz, how):
    if a.count == 1:
        return lambda net, a, dz, how: None
    return lambda net, a, dz, how: gradients(compiled_update, a[0], a[1:], dz[1:], net.W[1:], net.b[1:], how)


@compiled
def visit_rest(task, thread, first, last, scale, a, dz):
    """Forward from the second layer on, loss and deltas of rows `first` to `last`. a[l], dz[l] (n, H_l)."""
    forward_rest(task.net, a)
    y = take_labels(task.y, task.order, first, last)
    fused.softmax_cross_entropy(a[-1], y, scale, dz[-1], task.totals[thread])
    deltas(ops, task.net.WT, a, dz)


@compiled
def epoch_in_tiles(thread, task, moves, tile, dW, db, batch_size):
    """One thread's part of an epoch of large batches; dW and db are views of moves.g[thread]."""
    g, phase = moves.g[0], 0
    for step in range(len(moves.rates)):
        start = step * batch_size
        stop = min(start + batch_size, task.N)
        scale = g.dtype.type(1 / (stop - start))
        transpose(task.net, thread, task.threads)
        moves.g[thread, :] = 0
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        first, last = share(stop - start, thread, task.threads, TILE)
        for lo in range(start + first, start + last, TILE):
            if stopped(task.team):
                return
            hi = min(lo + TILE, start + last)
            x = take(task.X, task.order, lo, hi, tile, 0)
            list_for_gradient(x, 0, 1)
            a, dz = row_views(tile.a, 0, hi - lo), row_views(tile.dz, 0, hi - lo)
            visit(task, thread, lo, hi, scale, x, a, dz)
            gradients(ops, x, a, dz, dW, db, True)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        first, last = share(len(moves.w), thread, task.threads, LINE // g.itemsize)
        for other in range(1, task.threads):
            g[first:last] += moves.g[other, first:last]
        compiled_update.apply(moves, g[first:last], first, moves.rates[step])
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return


@compiled
def epoch_in_phases(thread, task, moves, panel, batch, batch_size):
    """One thread's part of an epoch of small batches, whose buffers all threads share."""
    H = task.net.W[0].shape[1]
    exchange_all(moves, H, panel, False)
    transpose(task.net, thread, task.threads)
    steps_in_phases(thread, task, moves, panel, batch, batch_size)
    exchange_all(moves, H, panel, True)


@compiled
def steps_in_phases(thread, task, moves, panel, batch, batch_size):
    """The steps of `epoch_in_phases`."""
    net, phase = task.net, 0
    I = net.W[0].shape[0]
    columns = panel.moves.w.reshape(I + 1, panel.last - panel.first)
    W, b = columns[:I], columns[I]
    for step in range(len(moves.rates)):
        start = step * batch_size
        n = min(batch_size, task.N - start)
        first, last = share(n, thread, task.threads, GROUP)
        a, dz = row_views(batch.a, 0, n), row_views(batch.dz, 0, n)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        take(task.X, task.order, start + first, start + last, batch, first)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        x = taken(batch, n)
        list_for_gradient(x, thread, task.threads)
        fused.fetch_ahead(task.X, task.order[start + batch_size + first : start + batch_size + last])
        ops.affine(x, W, b, a[0][:, panel.first : panel.last], len(net.W) > 1)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        scale = batch.x.dtype.type(1 / n)
        mine = row_views(a, first, last), row_views(dz, first, last)
        visit_rest(task, thread, start + first, start + last, scale, *mine)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        alone = compiled_update.Share(panel.moves, moves.rates[step], 0, 1)
        compiled_update.weight_gradient(x, dz[0][:, panel.first : panel.last], W, b, alone)
        move_rest(net, a, dz, compiled_update.Share(moves, moves.rates[step], thread, task.threads))
        transpose(net, thread, task.threads)


@compiled
def evaluate(thread, task, tile):
    """One thread's part of the loss and the right answers over all rows."""
    first, last = share(task.N, thread, task.threads, TILE)
    for lo in range(first, last, TILE):
        if stopped(task.team):
            return
        hi = min(lo + TILE, last)
        a = row_views(tile.a, 0, hi - lo)
        forward(ops, take(task.X, task.order, lo, hi, tile, 0), task.net.W, task.net.b, a)
        y, dz = take_labels(task.y, task.order, lo, hi), tile.dz[-1][: hi - lo]
        fused.softmax_cross_entropy(a[-1], y, dz.dtype.type(1), dz, task.totals[thread])


@compiled
def logits(thread, threads, team, net, X, tile, z):
    """One thread's part of the last layer's z (N, O) of rows X (N, I)."""
    first, last = share(len(X), thread, threads, TILE)
    for lo in range(first, last, TILE):
        if stopped(team):
            return
        hi = min(lo + TILE, last)
        a = row_views(tile.a, 0, hi - lo)
        forward(ops, take(X, None, lo, hi, tile, 0), net.W, net.b, a)
        z[lo:hi] = a[-1]


epoch_in_tiles, epoch_in_phases, evaluate, logits = (
    kept(function.py_func, VERSION) for function in (epoch_in_tiles, epoch_in_phases, evaluate, logits)
)
