"""`fastmlp.network` compiled by Numba, in the loops over tiles and batches that a team of threads runs.

A batch of many rows, or any of a small network, is worked through in tiles: each thread adds up a gradient of its own
while a tile's numbers are in its cache; the gradients are then summed and the parameters updated. Other batches take
phases: each thread owns units of the first hidden layer, with the weights that lead to them and from them, and has a
share of the rows for the other layers; it updates the weights whose gradient it has just made. docs/performance.md
explains both.
"""

from __future__ import annotations

import numpy as np

from fastmlp import network
from fastmlp.activations import RELU
from fastmlp.backends import compiled_ops, compiled_update
from fastmlp.backends.compiled_rows import list_for_gradient, take, take_labels, take_weights
from fastmlp.backends.compiled_task import Buffers, Net
from fastmlp.backends.compiled_update import BLOCK, LINE, VERSION, row_views, share
from fastmlp.backends.numba_ways import TILE
from fastmlp.dropout import NONE as KEEP_ALL
from fastmlp.dropout import Dropout
from fastmlp.kernels.cpu import fused, ops
from fastmlp.kernels.cpu.cache import compiled, kept, overload
from fastmlp.kernels.cpu.call import array_at
from fastmlp.kernels.cpu.reductions import squares_at
from fastmlp.kernels.cpu.sparse import GROUP
from fastmlp.kernels.cpu.team import barrier, stopped

forward, deltas, gradients = map(compiled, (network.forward, network.deltas, network.gradients))


@compiled
def dropout_of(task, step, first):
    """What is left out of a step, from row `first` of its batch on."""
    return Dropout(task.dropout, task.key + (np.uint64(step) << np.uint64(16)), first)  # see `dropout.step_key`


@compiled
def row_units(units, first, last):
    """z, a, h and dz of rows `first` to `last`."""
    return (
        row_views(units.z, first, last), row_views(units.a, first, last), row_views(units.h, first, last),
        row_views(units.dz, first, last),
    )  # fmt: skip


@compiled
def visit(task, thread, first, last, scale, x, units, drop):
    """Forward, loss and deltas of rows `first` to `last`, which are in x (n, I)."""
    net, (z, a, h, dz) = task.net, units
    forward(compiled_ops, net.kinds, x, net.W, net.b, z, a, h, drop)
    y, weight = take_labels(task.y, task.order, first, last), take_weights(task.weight, first, last)
    compiled_ops.loss(net.loss, a[-1], y, weight, net.numbers, scale, dz[-1], task.totals[thread])
    deltas(compiled_ops, net.kinds, net.W, z, a, dz, drop)


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


@compiled
def visit_rest(task, net, thread, first, last, scale, z, a, h, dz, drop):
    """Forward from the first z of `net` on, which has the network's last layers; then loss and deltas of the rows."""
    forward_rest(net, z, a, h, drop)
    y, weight = take_labels(task.y, task.order, first, last), take_weights(task.weight, first, last)
    compiled_ops.loss(net.loss, a[-1], y, weight, net.numbers, scale, dz[-1], task.totals[thread])
    deltas(compiled_ops, net.kinds, net.W, z, a, dz, drop)


@compiled
def shorten(task, moves, thread, first, last, phase):
    """Make the gradient at most moves.longest long; this thread's part is `first` to `last` of moves.g[thread] (P,).

    False if the team shall stop.
    """
    g = moves.g[thread]
    moves.norms[thread] = squares_at(g, g.ctypes.data + first * g.itemsize, last - first)
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


@compiled
def steps_of(moves, sums):
    """Steps of an epoch."""
    return moves.h.shape[1] // max(1, sums.shape[1])


@compiled
def hand_over(total, sums):
    """Move what an epoch added up from `total` to sums, both (3,)."""
    for i in range(3):
        sums[i] = total[i]
        total[i] = 0


@compiled
def epoch_in_tiles(thread, task, moves, tile, dW, db, batch_size, sums):
    """One thread's part of one or several epochs, each batch in tiles; dW and db are views of moves.g[thread].

    What the thread adds up in each epoch ends in sums (threads, epochs, 3).
    """
    g, phase, steps = moves.g[thread], 0, steps_of(moves, sums)
    for step in range(moves.h.shape[1]):
        epoch = step // steps
        start = epoch * task.N + (step - epoch * steps) * batch_size  # of all rows that are visited
        stop = min(start + batch_size, (epoch + 1) * task.N)
        scale = 1 / (stop - start)
        first, last = share(stop - start, thread, task.threads, GROUP)
        if first == last:
            g[:] = 0
        for lo in range(start + first, start + last, TILE):
            if stopped(task.team):
                return
            hi = min(lo + TILE, start + last)
            x = take(task.X, task.order, lo, hi, tile)
            list_for_gradient(x, 0, 1)
            units = row_units(tile, 0, hi - lo)
            visit(task, thread, lo, hi, scale, x, units, dropout_of(task, step, lo - start))
            gradients(compiled_ops, x, units[2], units[3], dW, db, lo > start + first)
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return
        first, last = share(len(moves.w), thread, task.threads, LINE // g.itemsize)
        for other in range(task.threads):  # into this thread's own: in another's, cache lines would go to and fro
            if other != thread:
                for i in range(first, last):
                    g[i] += moves.g[other, i]
        if moves.longest > 0:
            phase += 1
            if not shorten(task, moves, thread, first, last, phase):
                return
        compiled_update.apply_share(moves, g, task.net, step, first, last, stop - start, task.totals[thread])
        if not moves.rule:  # the gradient is wanted, in one place
            moves.g[0, first:last] = g[first:last]
        if step + 1 == (epoch + 1) * steps:
            hand_over(task.totals[thread], sums[thread, epoch])
        phase += 1
        if not barrier(task.team, task.threads, phase):
            return


@compiled
def own_layers(w, net, width):
    """W and b of the first two layers, of the `width` hidden units between them that a panel has; see `Panel`."""
    I, O = net.W[0].shape[0], net.W[1].shape[1]
    second = (I + 1) * width  # where the second layer begins
    W0 = array_at(w.ctypes.data, (I, width), net.W[0].dtype)
    W1 = array_at(w.ctypes.data + second * w.itemsize, (width, O), net.W[0].dtype)
    return (W0, W1), (w[I * width : second], w[second + width * O :])


@compiled
def own_units(batch, n, width):
    """z, a, h and dz of n rows, of the `width` units of the first layer that are the thread's own."""
    z, a, h, dz = batch.z[0], batch.a[0], batch.h[0], batch.dz[0]
    shape, like = (n, width), z.dtype
    return (
        array_at(z.ctypes.data, shape, like), array_at(a.ctypes.data, shape, like),
        array_at(h.ctypes.data, shape, like), array_at(dz.ctypes.data, shape, like),
    )  # fmt: skip


@compiled
def epoch_in_phases(thread, task, moves, panel, parts, batch, batch_size, sums):
    """One thread's part of one or several epochs of small batches.

    All threads share parts (threads, batch_size*O or more), and of `batch` what the layers from the second on, of O
    units, make of the rows. What the thread adds up in each epoch ends in sums (threads, epochs, 3).
    """
    net, phase, steps, width = task.net, 0, steps_of(moves, sums), panel.last - panel.first
    W, b = own_layers(panel.moves.w, net, width)
    rest = Net(net.W[1:], net.b[1:], net.kinds[1:], net.loss, net.numbers)
    later = Buffers(batch.x, batch.marked, batch.z[1:], batch.a[1:], batch.h[1:], batch.dz[1:])
    units, O = net.W[0].shape[1], net.W[1].shape[1]
    part = parts.ctypes.data + thread * parts.strides[0]
    for step in range(moves.h.shape[1]):
        epoch = step // steps
        start = epoch * task.N + (step - epoch * steps) * batch_size  # of all rows that are visited
        n = min(batch_size, (epoch + 1) * task.N - start)
        x = take(task.X, task.order, start, start + n, batch)
        drop, (z0, a0, h0, dz0) = dropout_of(task, step, 0), own_units(batch, n, width)
        forward(compiled_ops, net.kinds[:1], x, W[:1], b[:1], (z0,), (a0,), (h0,), KEEP_ALL)
        if drop.share > 0:
            compiled_ops.dropout_of_units(a0, drop.share, drop.key, panel.first, units, h0)
        ops.product(h0, W[1], array_at(part, (n, O), parts.dtype))
        phase += 1  # then all parts are written, and all weights have moved that the last step moves
        if not barrier(task.team, task.threads, phase):
            return
        list_for_gradient(x, thread, task.threads)
        first, last = share(n, thread, task.threads, GROUP)
        z, a, h, dz = row_units(later, first, last)
        ops.add_parts(parts, b[1], first, last, net.kinds[1] == RELU, z[0])
        after = Dropout(drop.share, drop.key + np.uint64(1), first)
        visit_rest(task, rest, thread, start + first, start + last, 1 / n, z, a, h, dz, after)
        phase += 1  # then dz of all rows is written, and parts may be written again
        if not barrier(task.team, task.threads, phase):
            return
        _, _, h, dz = row_units(later, 0, n)
        deltas(compiled_ops, net.kinds, W, (z0, z0), (a0, a0), (dz0, dz[0]), KEEP_ALL)
        if drop.share > 0:
            compiled_ops.dropout_of_units(dz0, drop.share, drop.key, panel.first, units, dz0)
        total = task.totals[thread]
        alone = compiled_update.Share(panel.moves, step, n, total, 0, 1)
        gradients(compiled_update, x, (h0,), (dz0, dz[0]), W, b, alone)
        move_rest(rest, h, dz, compiled_update.Share(moves, step, n, total, thread, task.threads))
        if step + 1 == (epoch + 1) * steps:
            hand_over(total, sums[thread, epoch])


@compiled
def evaluate(thread, task, tile):
    """One thread's part of the loss and the right answers over all rows."""
    first, last = share(task.N, thread, task.threads, BLOCK)
    for lo in range(first, last, TILE):
        if stopped(task.team):
            return
        hi = min(lo + TILE, last)
        z, a, _, dz = row_units(tile, 0, hi - lo)
        x = take(task.X, task.order, lo, hi, tile)
        forward(compiled_ops, task.net.kinds, x, task.net.W, task.net.b, z, a, a, KEEP_ALL)
        y, weight = take_labels(task.y, task.order, lo, hi), take_weights(task.weight, lo, hi)
        compiled_ops.loss(task.net.loss, a[-1], y, weight, task.net.numbers, 1.0, dz[-1], task.totals[thread])


@compiled
def hand_out(a, softmax, z):
    """z = a, or its softmax. a (n, O) -> z (n, O)."""
    for n in range(len(z)):  # a loop, since z[:] = a takes longer to compile
        for o in range(z.shape[1]):
            z[n, o] = a[n, o]
    if softmax:
        fused.softmax(z)


@compiled
def outputs(thread, threads, team, net, X, tile, softmax, z):
    """One thread's part of the last layer's z (N, O) of rows X (N, I), or of its softmax: its rows."""
    first, last = share(len(z), thread, threads, BLOCK)
    for lo in range(first, last, TILE):
        if stopped(team):
            return
        hi = min(lo + TILE, last)
        units_z, a, _, _ = row_units(tile, 0, hi - lo)
        x = take(X, None, lo, hi, tile)
        forward(compiled_ops, net.kinds, x, net.W, net.b, units_z, a, a, KEEP_ALL)
        hand_out(a[-1], softmax, z[lo:hi])


@compiled
def outputs_by_columns(thread, threads, team, net, X, tile, softmax, z):
    """`outputs` of at most a tile of rows: each thread has columns of the first layer, and rows of the others.

    All threads share z and a of the tile.
    """
    first, last = share(net.W[0].shape[1], thread, threads, LINE // net.b[0].itemsize)
    x, columns = take(X, None, 0, len(z), tile), tile.z[0][: len(z), first:last]
    ops.affine(x, net.W[0][:, first:last], net.b[0][first:last], columns, net.kinds[0] == RELU)
    if not barrier(team, threads, 1):
        return
    first, last = share(len(z), thread, threads, GROUP)
    units_z, a, _, _ = row_units(tile, first, last)
    forward_rest(net, units_z, a, a, KEEP_ALL)
    hand_out(a[-1], softmax, z[first:last])


epoch_in_tiles, epoch_in_phases, evaluate, outputs, outputs_by_columns = (
    kept(function.py_func, VERSION)
    for function in (epoch_in_tiles, epoch_in_phases, evaluate, outputs, outputs_by_columns)
)
