"""exp and tanh, written so that LLVM makes vectors of them.

The C library's are called number by number; over the classes of a row, that is most of what softmax costs.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .cache import overload
from .vector import I32

F = np.float32
LOWEST = F(-87.0)  # exp of less is below the smallest normal float32; a softmax cannot tell
HIGHEST = F(89.0)  # exp of this is infinite
# Cephes' expf: exp(r) for |r| <= ln(2) / 2, and ln(2) in two parts, so that r loses nothing.
P0, P1, P2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
P3, P4, P5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
LOG2_E, LN2_HIGH, LN2_LOW = F(1.44269504088896341), F(0.693359375), F(-2.12194440e-4)
HALF, ONE, TWO, BIAS = F(0.5), F(1), F(2), np.int32(127)
# tanh(x) = x - x^3/3 + 2 x^5/15 - 17 x^7/315 + 62 x^9/2835 - ..., taken for x^2 < SMALL
T3, T5, T7, T9 = F(-1 / 3), F(2 / 15), F(-17 / 315), F(62 / 2835)
SMALL = F(0.09)


@intrinsic
def float_of_bits(typingctx, bits):
    """The float32 that has these 32 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.trunc(arguments[0], I32), ir.FloatType())

    return types.float32(types.int64), generate


def exp(x):
    """exp(x): within 2e-7 relative in float32, infinite from 88.38 on; the C library's in float64. A NaN stays one."""


@overload(exp)
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def polynomial(x):
        x = LOWEST if x < LOWEST else x
        x = HIGHEST if x > HIGHEST else x
        n = np.floor(x * LOG2_E + HALF)
        r = x - n * LN2_HIGH - n * LN2_LOW
        p = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
        p = p * r * r + r + ONE
        return p * float_of_bits((np.int32(n) + BIAS) << 23)

    return polynomial


def tanh(x):
    """tanh(x): within 4e-7 relative in float32, the C library's in float64; a NaN stays one."""


@overload(tanh)
def _tanh(x):
    if x != types.float32:
        return lambda x: math.tanh(x)

    def from_exp(x):
        square = x * x
        series = x + x * square * (T3 + square * (T5 + square * (T7 + square * T9)))  # near 0, where 1 - e cancels
        e = exp(-TWO * abs(x))
        far = (ONE - e) / (ONE + e)
        far = -far if x < 0 else far
        return series if square < SMALL else far

    return from_exp
