"""exp, tanh and log, written so that LLVM makes vectors of them.

The C library's are called number by number; over the classes of a row, that is most of what softmax costs.
"""

import math

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cache import overload
from .vector import I32, I64, REALS, declare, has_fma

F, D = np.float32, np.float64
LOWEST = F(-87.0)  # exp of less is below the smallest normal float32; a softmax cannot tell
HIGHEST = F(89.0)  # exp of this is infinite
# Cephes' expf: exp(r) for |r| <= ln(2) / 2, and ln(2) in two parts, so that r loses nothing.
CEPHES = tuple(map(F, (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
                       5.0000001201e-1)))  # fmt: skip
LOG2_E, LN2_HIGH, LN2_LOW = F(1.44269504088896341), F(0.693359375), F(-2.12194440e-4)
HALF, BIAS, D_BIAS = F(0.5), np.int32(127), np.int64(1023)
# float64 takes the Taylor series of exp(r) to r^13 / 13!, which leaves out less than 1e-17.
TAYLOR = tuple(D(1 / math.factorial(k)) for k in range(13, 1, -1))
D_LOWEST, D_HIGHEST, D_LOG2_E = D(-708), D(710), D(1.4426950408889634)
D_LN2_HIGH, D_LN2_LOW = D(0.693145751953125), D(1.42860682030941723212e-6)
# log(m) = 2 artanh(s), s = (m - 1) / (m + 1), |s| < 0.172: its series s + s^3 / 3 + ... leaves out s^11 / 11 and more
# in float32, s^21 / 21 and more in float64.
ARTANH, D_ARTANH = tuple(F(1 / k) for k in range(9, 1, -2)), tuple(D(1 / k) for k in range(19, 1, -2))
LOWEST_NORMAL, D_LOWEST_NORMAL = np.finfo(F).tiny, np.finfo(D).tiny


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


@intrinsic
def polynomial(typingctx, coefficients, x):
    """coefficients[0] x^k + ... + coefficients[k], a product and a sum rounded together where the CPU can.

    So polynomial((a, b), x) is a x + b. Numba would leave them apart, and take twice as long.
    """
    name, number = f"llvm.{'fma' if has_fma() else 'fmuladd'}.f{x.bitwidth}", REALS[x.name]

    def generate(context, builder, signature, arguments):
        multiply_add = declare(builder.module, name, number, [number] * 3)
        total, *others = cgutils.unpack_tuple(builder, arguments[0])
        for coefficient in others:
            total = builder.call(multiply_add, [total, arguments[1], coefficient])
        return total

    return x(coefficients, x), generate


def parts(x):
    """(q, s) with exp(x) = s (1 + q), s a power of 2: near 0, q is exp(x) - 1 without cancellation."""


@overload(parts)
def _parts(x):
    def float_parts(x):
        x = LOWEST if x < LOWEST else x
        x = HIGHEST if x > HIGHEST else x
        n = np.floor(polynomial((LOG2_E, HALF), x))
        r = polynomial((-LN2_LOW, polynomial((-LN2_HIGH, x), n)), n)
        return polynomial((polynomial(CEPHES, r) * r, r), r), float_of_bits((np.int32(n) + BIAS) << 23)

    def double_parts(x):
        x = D_LOWEST if x < D_LOWEST else x
        x = D_HIGHEST if x > D_HIGHEST else x
        n = np.floor(polynomial((D_LOG2_E, D(0.5)), x))
        r = polynomial((-D_LN2_LOW, polynomial((-D_LN2_HIGH, x), n)), n)
        exponent = np.int64(np.int32(n)) + D_BIAS  # AVX2 converts to int32 only
        return polynomial((polynomial(TAYLOR, r) * r, r), r), double_of_bits(exponent << 52)

    return float_parts if x == types.float32 else double_parts


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


def make_split(real, number, bits):
    """An intrinsic: (n, m) with x = 2^n m, m from sqrt(1/2) to sqrt(2), for a normal x > 0 of type `real`."""
    fraction, low = (52, 0x3FE6A09E667F3BCD) if bits == I64 else (23, 0x3F3504F3)  # low: the bits of sqrt(1/2)

    @intrinsic
    def split(typingctx, x):
        def generate(context, builder, signature, arguments):
            all_bits = builder.bitcast(arguments[0], bits)
            n = builder.ashr(builder.sub(all_bits, bits(low)), bits(fraction))
            m = builder.sub(all_bits, builder.shl(n, bits(fraction)))
            n = n if bits == I32 else builder.trunc(n, I32)  # AVX2 converts from int32 only
            parts = builder.sitofp(n, number), builder.bitcast(m, number)
            return context.make_tuple(builder, signature.return_type, parts)

        return types.UniTuple(real, 2)(real), generate

    return split


split_float = make_split(types.float32, ir.FloatType(), I32)
split_double = make_split(types.float64, ir.DoubleType(), I64)


def log(x):
    """The natural logarithm of x > 0, within 2e-7 relative in float32 and 4e-16 in float64. A NaN stays one.

    Of x below the smallest normal number it is what it is there.
    """


@overload(log)
def _log(x):
    def float_log(x):
        n, m = split_float(LOWEST_NORMAL if x < LOWEST_NORMAL else x)
        s = (m - F(1)) / (m + F(1))
        half = polynomial((polynomial(ARTANH, s * s) * (s * s), s), s)
        return polynomial((LN2_HIGH, polynomial((LN2_LOW, F(2) * half), n)), n) if x < np.inf else x

    def double_log(x):
        n, m = split_double(D_LOWEST_NORMAL if x < D_LOWEST_NORMAL else x)
        s = (m - D(1)) / (m + D(1))
        half = polynomial((polynomial(D_ARTANH, s * s) * (s * s), s), s)
        return polynomial((D_LN2_HIGH, polynomial((D_LN2_LOW, D(2) * half), n)), n) if x < np.inf else x

    return float_log if x == types.float32 else double_log
