"""exp of numbers that are not positive, written so that LLVM makes vectors of it.

The C library's exp is called number by number; over the classes of a row, that is most of what softmax costs.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from .vector import I32

F = np.float32
LOWEST = F(-87.0)  # exp of less is below the smallest normal float32; a softmax cannot tell
# Cephes' expf: exp(r) for |r| <= ln(2) / 2, and ln(2) in two parts, so that r loses nothing.
P0, P1, P2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
P3, P4, P5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
LOG2_E, LN2_HIGH, LN2_LOW = F(1.44269504088896341), F(0.693359375), F(-2.12194440e-4)
HALF, ONE, BIAS = F(0.5), F(1), np.int32(127)


@intrinsic
def float_of_bits(typingctx, bits):
    """The float32 that has these 32 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(builder.trunc(arguments[0], I32), ir.FloatType())

    return types.float32(types.int64), generate


def exp(x):
    """exp(x) for x <= 0: within 2e-7 relative in float32, the C library's in float64; a NaN stays one."""


@overload(exp)
def _exp(x):
    if x != types.float32:
        return lambda x: math.exp(x)

    def polynomial(x):
        x = LOWEST if x < LOWEST else x
        n = np.floor(x * LOG2_E + HALF)
        r = x - n * LN2_HIGH - n * LN2_LOW
        p = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
        p = p * r * r + r + ONE
        return p * float_of_bits((np.int32(n) + BIAS) << 23)

    return polynomial
