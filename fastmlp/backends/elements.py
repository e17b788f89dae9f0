"""The rules of elements (activations, losses, optimizers) compiled by Numba, each once, as a C function.

Compiled code is handed the address of a rule and calls it there: a network pays for the compilation of what it uses,
and no epoch's code grows with the number of rules there are. Rows of the arrays lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numba import cfunc, types

from fastmlp import activations, dropout, elementary, losses, optimizers
from fastmlp.backends.compiled_update import VERSION
from fastmlp.kernels.cpu import exponential, fused
from fastmlp.kernels.cpu.cache import compiled, overload, with_cache
from fastmlp.kernels.cpu.call import DROPOUT, array_at, publish
from fastmlp.optimizers import Step

I64, F64 = types.int64, types.float64
LOSS = types.void(*[I64] * 8, F64)
NUMBERS = len(Step._fields)


compiled_hash, stays = compiled(dropout.hashed), compiled(dropout.stays)


@overload(dropout.hashed)
def _hashed(n):
    return lambda n: compiled_hash(n)


@overload(elementary.like)
def _like(number, z):
    real = np.float32 if z == types.float32 else np.float64
    return lambda number, z: real(number)


@overload(elementary.where)
def _where(condition, a, b):
    return lambda condition, a, b: a if condition else b


@overload(elementary.exp)
def _exp(z):
    return lambda z: exponential.exp(z)


@overload(elementary.tanh)
def _tanh(z):
    return lambda z: exponential.tanh(z)


@overload(elementary.log)
def _log(z):
    return lambda z: exponential.log(z)


def f(name, z):
    """The activation called `name`."""


def slope(name, z, a):
    """The slope of the activation called `name`."""


def loss(name, z, y, c):
    """The loss called `name` and its slope."""


def move(name, w, g, s, i, h):
    """The optimizer's rule called `name`."""


# A name is a literal here: functions themselves could not be kept in Numba's compile cache.


@overload(f, prefer_literal=True)
def _f(name, z):
    rule = compiled(activations.ACTIVATIONS[name.literal_value].f)
    return lambda name, z: rule(z)


@overload(slope, prefer_literal=True)
def _slope(name, z, a):
    rule = compiled(activations.ACTIVATIONS[name.literal_value].slope)
    return lambda name, z, a: rule(z, a)


@overload(loss, prefer_literal=True)
def _loss(name, z, y, c):
    rule = compiled(losses.ELEMENTWISE[name.literal_value])
    return lambda name, z, y, c: rule(z, y, c)


@overload(move, prefer_literal=True)
def _move(name, w, g, s, i, h):
    rule = compiled(optimizers.OPTIMIZERS[name.literal_value].rule)
    return lambda name, w, g, s, i, h: rule(w, g, s, i, h)


KEPT: list[Any] = []  # the C functions: their addresses hold while they live


def address(function: Callable[..., None], signature: Any, *name: str) -> int:
    """Where `function`, compiled as a C function or loaded from the compile cache, begins."""
    function.__qualname__ = "_".join((function.__name__, *name, VERSION))
    KEPT.append(with_cache(partial(cfunc, signature), function))
    where: int = KEPT[-1].address
    return where


@cache
def activation(name: str, dtype: np.dtype) -> int:
    """Address of a function of z, a, dz, count: a = f(z), or where dz is not 0, dz *= f'(z). All (count,)."""
    real = dtype.type

    def activation(z, a, dz, count):
        a_ = array_at(a, count, real)
        z_ = array_at(z, count, real)
        if dz:
            dz_ = array_at(dz, count, real)
            for i in range(count):
                dz_[i] *= slope(name, z_[i], a_[i])
            return
        if z != a:
            for i in range(count):
                a_[i] = z_[i]
        for i in range(count):  # over one array only: a loop that may meet itself in another stays scalar
            a_[i] = f(name, a_[i])

    return address(activation, types.void(I64, I64, I64, I64), name, dtype.name)


@cache
def elementwise_loss(name: str, dtype: np.dtype) -> int:
    """Address of a function of z, y, weight or 0, numbers, dz, totals, N, O, scale; see `Ops.elementwise_loss`."""
    real = dtype.type

    def elementwise_loss(z, y, weight, numbers, dz, totals, N, O, scale):
        z_, y_ = array_at(z, (N, O), real), array_at(y, (N, O), real)
        dz_, c = array_at(dz, (N, O), real), array_at(numbers, O, real)
        total, right = 0.0, 0
        for n in range(N):
            factor = array_at(weight, N, real)[n] if weight else real(1)
            sum_, hits = 0.0, 0
            for o in range(O):
                hits += (z_[n, o] > 0) == (y_[n, o] > 0.5)
                value, steep = loss(name, z_[n, o], y_[n, o], c[o])
                sum_ += value
                dz_[n, o] = steep * factor * real(scale)
            total += sum_ * factor
            right += hits == O
        totals_ = array_at(totals, 2, np.float64)
        totals_[0] += total
        totals_[1] += right

    return address(elementwise_loss, LOSS, name, dtype.name)


@cache
def cross_entropy(dtype: np.dtype) -> int:
    """Address of a function of z, y (N,) int32, and the rest as in `elementwise_loss`; see `fused`."""
    real = dtype.type

    def cross_entropy(z, y, weight, numbers, dz, totals, N, O, scale):
        fused.softmax_cross_entropy(
            array_at(z, (N, O), real), array_at(y, N, np.int32), real(scale),
            array_at(dz, (N, O), real), array_at(totals, 2, np.float64),
            array_at(weight, N if weight else 0, real), array_at(numbers, 3, real),
        )  # fmt: skip

    return address(cross_entropy, LOSS, dtype.name)


DROPOUTS = {name: np.zeros(1, np.int64) for name in ("float32", "float64")}  # addresses; 0: not compiled, not used yet
for name, place in DROPOUTS.items():
    publish(DROPOUT + name, place.ctypes.data)


@cache
def publish_dropout(dtype: np.dtype) -> None:
    """Put dropout over arrays (N, H) of `dtype` where compiled code looks for it.

    The first row's units have the places from `first` on, those of the next row `step` more; see `dropout.stays`.
    """
    real = dtype.type

    def dropout(a, out, N, H, first, step, share, key):
        a_, out_ = array_at(a, N * H, real), array_at(out, N * H, real)
        if a != out:
            for i in range(N * H):
                out_[i] = a_[i]
        more = real(1 / (1 - share))
        for n in range(N):
            row, start = out_[n * H : (n + 1) * H], np.uint64(first + n * step)
            for h in range(H):  # over one array only: a loop that may meet itself in another stays scalar
                row[h] *= more if stays(share, key, start + np.uint64(h)) else real(0)

    DROPOUTS[dtype.name][0] = address(dropout, types.void(*[I64] * 6, F64, types.uint64), dtype.name)


@cache
def rule(name: str, dtype: np.dtype) -> int:
    """Address of a function of w, g, s0, s1, count, h: the optimizer's rule on (count,) parameters, h (8,) a `Step`."""
    real = dtype.type

    def rule(w, g, s0, s1, count, h):
        w_, g_ = array_at(w, count, real), array_at(g, count, real)
        s = array_at(s0, count, real), array_at(s1, count, real)
        n = array_at(h, NUMBERS, real)
        step = Step(n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7])
        for i in range(count):
            move(name, w_, g_, s, i, step)

    return address(rule, types.void(*[I64] * 6), name, dtype.name)
