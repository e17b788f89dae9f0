"""exp and tanh, written so that LLVM makes vectors of them.

The C library's are called number by number; over the classes of a row, that is most of what softmax costs.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .cache import overload
from .vector import I32, I64

F, D = np.float32, np.float64
LOWEST = F(-87.0)  # exp of less is below the smallest normal float32; a softmax cannot tell
HIGHEST = F(89.0)  # exp of this is infinite
# Cephes' expf: exp(r) for |r| <= ln(2) / 2, and ln(2) in two parts, so that r loses nothing.
P0, P1, P2 = F(1.9875691500e-4), F(1.3981999507e-3), F(8.3334519073e-3)
P3, P4, P5 = F(4.1665795894e-2), F(1.6666665459e-1), F(5.0000001201e-1)
LOG2_E, LN2_HIGH, LN2_LOW = F(1.44269504088896341), F(0.693359375), F(-2.12194440e-4)
HALF, BIAS, D_BIAS = F(0.5), np.int32(127), np.int64(1023)
# float64 takes the Taylor series of exp(r) to r^13 / 13!, which leaves out less than 1e-17.
D2, D3, D4, D5, D6, D7, D8, D9, D10, D11, D12, D13 = (D(1 / math.factorial(k)) for k in range(2, 14))
D_LOWEST, D_HIGHEST, D_LOG2_E = D(-708), D(710), D(1.4426950408889634)
D_LN2_HIGH, D_LN2_LOW = D(0.693145751953125), D(1.42860682030941723212e-6)


def make_of_bits(real, bits, number):
    """An intrinsic: the number of type `real` that has these lowest `bits` of an int64."""

    @intrinsic
    def of_bits(typingctx, n):
        def generate(context, builder, signature, arguments):
            low = arguments[0] if bits == I64 else builder.trunc(arguments[0], bits)
            return builder.bitcast(low, number)

        return real(types.int64), generate

    return of_bits


float_of_bits = make_of_bits(types.float32, I32, ir.FloatType())
double_of_bits = make_of_bits(types.float64, I64, ir.DoubleType())


def parts(x):
    """(q, s) with exp(x) = s (1 + q), s a power of 2: near 0, q is exp(x) - 1 without cancellation."""


@overload(parts)
def _parts(x):
    def polynomial(x):
        x = LOWEST if x < LOWEST else x
        x = HIGHEST if x > HIGHEST else x
        n = np.floor(x * LOG2_E + HALF)
        r = x - n * LN2_HIGH - n * LN2_LOW
        p = ((((P0 * r + P1) * r + P2) * r + P3) * r + P4) * r + P5
        return p * r * r + r, float_of_bits((np.int32(n) + BIAS) << 23)

    def taylor(x):
        x = D_LOWEST if x < D_LOWEST else x
        x = D_HIGHEST if x > D_HIGHEST else x
        n = np.floor(x * D_LOG2_E + 0.5)
        r = x - n * D_LN2_HIGH - n * D_LN2_LOW
        p = (((((D13 * r + D12) * r + D11) * r + D10) * r + D9) * r + D8) * r + D7
        p = ((((p * r + D6) * r + D5) * r + D4) * r + D3) * r + D2
        return p * r * r + r, double_of_bits((np.int64(np.int32(n)) + D_BIAS) << 52)  # AVX2 converts to int32 only

    return polynomial if x == types.float32 else taylor


def exp(x):
    """exp(x), infinite where 2^n overflows (from 88.38 in float32, 709.43 in float64 on). A NaN stays one.

    Within 2e-7 relative in float32 and 4e-16 in float64; below -87 and -708 what it is there.
    """


@overload(exp)
def _exp(x):
    real = np.float32 if x == types.float32 else np.float64

    def from_parts(x):
        q, s = parts(x)
        return (q + real(1)) * s

    return from_parts


def tanh(x):
    """tanh(x), within 4e-7 relative in float32 and 1e-15 in float64; a NaN stays one."""


@overload(tanh)
def _tanh(x):
    real = np.float32 if x == types.float32 else np.float64

    def from_parts(x):
        q, s = parts(real(-2) * abs(x))
        e = s * q + (s - real(1))  # exp(-2 |x|) - 1
        t = (real(0) - e) / (real(2) + e)
        return -t if x < 0 else t

    return from_parts
