"""A barrier for plain threads that run compiled code: an atomic counter, spun on shortly, then yielded on.

No OpenMP, TBB or Numba thread pool is involved: several teams may run at once, and a fork is safe.
"""

import sys

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .cache import compiled
from .vector import I32, I64, declare, on_x86, pointer

# Places in a team's array of int64, each on a cache line of its own.
ARRIVED = 0  # threads that have come to a barrier, all barriers counted together
STOP = 8  # not 0: leave at the next barrier or tile
SPINS = 2000  # looks at the counter before the core is given to another program


def new_team():
    """The shared array of a team: zeros, int64."""
    return np.zeros(16, np.int64)


@intrinsic
def atomic_add(typingctx, address, number):
    """Add to the int64 at an address; returns what was there."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", pointer(builder, arguments[0], I64), arguments[1], "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at an address, as other threads last left it."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(pointer(builder, arguments[0], I64), "seq_cst", 8)

    return types.int64(types.int64), generate


@intrinsic
def pause(typingctx):
    """Tell the CPU that this is a spin loop."""

    def generate(context, builder, signature, arguments):
        if on_x86():
            builder.call(declare(builder.module, "llvm.x86.sse2.pause", ir.VoidType(), []), [])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def give_way(typingctx):
    """Let the operating system run something else on this core."""

    def generate(context, builder, signature, arguments):
        name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
        builder.call(declare(builder.module, name, I32, []), [])
        return context.get_dummy_value()

    return types.void(), generate


@compiled
def stopped(team):
    """Whether someone asked the team to stop."""
    return atomic_load(team + 8 * STOP) != 0


@compiled
def barrier(team, threads, phase):
    """Wait until all `threads` have come to barrier number `phase`, counted from 1; False if the team shall stop.

    `team` is the address of the shared array. A thread that has left because of STOP is not waited for.
    """
    if threads > 1:
        atomic_add(team + 8 * ARRIVED, 1)
        spins = 0
        while atomic_load(team + 8 * ARRIVED) < phase * threads:
            if stopped(team):
                return False
            spins += 1
            if spins < SPINS:
                pause()
            else:
                give_way()
    return not stopped(team)
