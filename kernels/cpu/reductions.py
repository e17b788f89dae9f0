"""Sums and maxima over contiguous numbers, a register at a time.

Numba keeps the order of a sum, and so does not make vectors of it; these add lane by lane, and the lanes at the end.
Sums of columns stay in registers, which Numba's own loops would store after every row.
"""

import math

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vector import BYTES, I32, I64, REALS, broadcast, first_lanes, load_lanes, register_bytes, store_lanes, zeros

SIDE_BY_SIDE = 4  # registers of columns that are summed together: one sum is on its way while the next begins


def vector_of(like):
    """The register of numbers of an array's type, and the bytes of a number."""
    real = str(like.dtype)
    return ir.VectorType(REALS[real], register_bytes() // BYTES[real]), BYTES[real]


def sweep(builder, count, lanes, body):
    """Emit body(first, mask) for each register of `count` numbers, from number `first` on; mask None is all lanes."""
    whole = builder.and_(count, I64(-lanes))
    with cgutils.for_range_slice(builder, I64(0), whole, I64(lanes)) as (first, _):
        body(first, None)
    rest = builder.sub(count, whole)
    with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
        body(whole, first_lanes(builder, rest, lanes))


def across(builder, vector, combine):
    """All lanes of a vector combined into one number, halves first."""
    width = vector.type.count
    while width > 1:
        width //= 2
        low, high = (ir.Constant(ir.VectorType(I32, width), list(range(at, at + width))) for at in (0, width))
        undefined = ir.Constant(vector.type, ir.Undefined)
        vector = combine(*(builder.shuffle_vector(vector, undefined, half) for half in (low, high)))
    return builder.extract_element(vector, I32(0))


def make_sum(squared):
    """An intrinsic: the sum of `count` numbers of the type of the array `like` at an address.

    Of their squares it is a float64.
    """

    @intrinsic
    def total(typingctx, like, address, count):
        def generate(context, builder, signature, arguments):
            _, address, count = arguments
            vector, size = vector_of(like)
            sums = ir.VectorType(ir.DoubleType(), vector.count) if squared else vector
            total = cgutils.alloca_once_value(builder, zeros(sums))

            def add(first, mask):
                at = builder.add(address, builder.mul(first, I64(size)))
                numbers = load_lanes(builder, at, vector, size, mask)
                if sums != vector:
                    numbers = builder.fpext(numbers, sums)
                if squared:
                    numbers = builder.fmul(numbers, numbers)
                builder.store(builder.fadd(builder.load(total), numbers), total)

            sweep(builder, count, vector.count, add)
            return across(builder, builder.load(total), builder.fadd)

        return (types.float64 if squared else like.dtype)(like, types.int64, types.int64), generate

    return total


sum_at, squares_at = make_sum(False), make_sum(True)


@intrinsic
def top_at(typingctx, like, address, count):
    """The largest of `count` numbers of the type of the array `like` at an address; it overlooks NaN."""

    def generate(context, builder, signature, arguments):
        _, address, count = arguments
        vector, size = vector_of(like)
        lowest = broadcast(builder, ir.Constant(vector.element, -math.inf), vector)
        top = cgutils.alloca_once_value(builder, lowest)

        def larger(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        def raise_top(first, mask):
            numbers = load_lanes(builder, builder.add(address, builder.mul(first, I64(size))), vector, size, mask)
            numbers = numbers if mask is None else builder.select(mask, numbers, lowest)
            builder.store(larger(numbers, builder.load(top)), top)

        sweep(builder, count, vector.count, raise_top)
        return across(builder, builder.load(top), larger)

    return like.dtype(like, types.int64, types.int64), generate


@intrinsic
def below_top(typingctx, like, address, count, top, out):
    """Put `count` numbers, less `top`, at address `out`, which may be their own; the place of the first that is top.

    Without one it is 0.
    """

    def generate(context, builder, signature, arguments):
        _, address, count, top, out = arguments
        vector, size = vector_of(like)
        tops, bits = broadcast(builder, top, vector), ir.IntType(vector.count)
        place = cgutils.alloca_once_value(builder, I64(-1))

        def subtract(first, mask):
            offset = builder.mul(first, I64(size))
            numbers = load_lanes(builder, builder.add(address, offset), vector, size, mask)
            equal = builder.bitcast(builder.fcmp_ordered("==", numbers, tops), bits)  # a lane that is off comes later
            store_lanes(builder, builder.fsub(numbers, tops), builder.add(out, offset), size, mask)
            here = builder.add(first, builder.zext(builder.cttz(equal, ir.Constant(ir.IntType(1), 0)), I64))
            found, none = builder.load(place), builder.icmp_signed("<", builder.load(place), I64(0))
            is_first = builder.and_(none, builder.icmp_signed("!=", equal, bits(0)))
            builder.store(builder.select(is_first, here, found), place)

        sweep(builder, count, vector.count, subtract)
        found = builder.load(place)
        return builder.select(builder.icmp_signed("<", found, I64(0)), I64(0), found)

    return types.int64(like, types.int64, types.int64, like.dtype, types.int64), generate


@intrinsic
def add_columns(typingctx, like, address, row, rows, columns, out):
    """Add to `columns` numbers at `out` the sums over `rows` rows at an address, `row` bytes apart, in their order.

    Numbers are of the type of the array `like`.
    """

    def generate(context, builder, signature, arguments):
        _, address, row, rows, columns, out = arguments
        vector, size = vector_of(like)
        lanes = vector.count
        totals = [cgutils.alloca_once(builder, vector) for _ in range(SIDE_BY_SIDE)]
        with cgutils.for_range_slice(builder, I64(0), columns, I64(SIDE_BY_SIDE * lanes)) as (first, _):
            offset, masks = builder.mul(first, I64(size)), []
            for j in range(SIDE_BY_SIDE):  # lanes beyond the last column are off
                left = builder.sub(columns, builder.add(first, I64(j * lanes)))
                left = builder.select(builder.icmp_signed("<", left, I64(0)), I64(0), left)
                masks.append(first_lanes(builder, left, lanes))

            def places(start):
                for j, (total, mask) in enumerate(zip(totals, masks, strict=True)):
                    yield total, builder.add(builder.add(start, offset), I64(j * lanes * size)), mask

            for total, at, mask in places(out):
                builder.store(load_lanes(builder, at, vector, size, mask), total)
            with cgutils.for_range(builder, rows) as n:
                for total, at, mask in places(builder.add(address, builder.mul(row, n.index))):
                    numbers = load_lanes(builder, at, vector, size, mask)
                    builder.store(builder.fadd(builder.load(total), numbers), total)
            for total, at, mask in places(out):
                store_lanes(builder, builder.load(total), at, size, mask)
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5), generate
