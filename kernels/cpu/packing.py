"""Copies of parts of the operands of a product, for the caches and for bfloat16.

Rows whose distance is a multiple of a cache's own size fall on top of each other in it: a copy lies close. Rows of the
right operand must be contiguous: where columns are, it is turned. An operand that is to be rounded to bfloat16 lies in
pairs of k, as the CPU's instruction takes them: an uint32 of two numbers.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .cache import compiled
from .vector import (
    BYTES,
    I8,
    I16,
    I32,
    I64,
    REALS,
    BFloat,
    declare,
    first_lanes,
    load,
    load_lanes,
    pointer,
    register_bytes,
    store,
    store_lanes,
)

LANES = 16  # float32 in a register of a CPU with AVX-512 BF16
SINGLE, PAIR = 2, 4  # bytes of one bfloat16, and of two
PAIRED = 2 * LANES  # bfloat16 of a row that `pair_rows` reads at a time
LINE = 64  # bytes of a cache line


@intrinsic
def reserve(typingctx, size):
    """The address of so many bytes of memory, or 0."""

    def generate(context, builder, signature, arguments):
        where = builder.call(declare(builder.module, "malloc", I8.as_pointer(), [I64]), arguments)
        return builder.ptrtoint(where, I64)

    return types.int64(types.int64), generate


@intrinsic
def release(typingctx, address):
    """Give back what `reserve` gave; 0 is nothing."""

    def generate(context, builder, signature, arguments):
        where = pointer(builder, arguments[0], I8)
        builder.call(declare(builder.module, "free", ir.VoidType(), [I8.as_pointer()]), [where])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at an address, and go on; an address where there is nothing does no harm."""

    def generate(context, builder, signature, arguments):
        ask = declare(builder.module, "llvm.prefetch.p0", ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        builder.call(ask, [pointer(builder, arguments[0], I8), I32(0), I32(2), I32(1)])  # to read, into L2, data
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic(prefer_literal=True)
def copy_numbers(typingctx, real, source, to, count):
    """Copy `count` numbers from one address to another, a register at a time."""
    size, number = BYTES[real.literal_value], REALS[real.literal_value]
    lanes = register_bytes() // size
    vector = ir.VectorType(number, lanes)

    def generate(context, builder, signature, arguments):
        _, source, to, count = arguments

        def move(offset, mask):
            numbers = load_lanes(builder, builder.add(source, offset), vector, size, mask)
            store_lanes(builder, numbers, builder.add(to, offset), size, mask)

        whole = builder.sdiv(count, I64(lanes))
        with cgutils.for_range(builder, whole) as place:
            move(builder.mul(place.index, I64(lanes * size)), None)
        done = builder.mul(whole, I64(lanes))
        rest = builder.sub(count, done)
        with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
            move(builder.mul(done, I64(size)), first_lanes(builder, rest, lanes))
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def turn_numbers(typingctx, real, source, row, rows, K, to, to_row):
    """Rows of K numbers become columns, square by square of as many numbers a side as a register has.

    The room for the columns is of whole squares: what has no source are zeros.
    """
    size, number = BYTES[real.literal_value], REALS[real.literal_value]
    lanes = register_bytes() // size
    vector, span = ir.VectorType(number, lanes), I64(lanes)

    def across_the_diagonal(distance):
        """Of row i and row i + distance of a square: the numbers of both that make the one, and the other."""
        upper = [lane - distance + lanes if lane & distance else lane for lane in range(lanes)]
        lower = [lane + lanes if lane & distance else lane + distance for lane in range(lanes)]
        return [ir.Constant(ir.VectorType(I32, lanes), places) for places in (upper, lower)]

    def generate(context, builder, signature, arguments):
        _, source, row, rows, K, to, to_row = arguments

        def turn_square(left, right, masks):
            square = [
                load_lanes(builder, builder.add(left, builder.mul(row, I64(i))), vector, size, masks[i])
                for i in range(lanes)
            ]
            for distance in (1 << bit for bit in range(lanes.bit_length() - 1)):
                for i in (i for i in range(lanes) if not i & distance):
                    pair = square[i], square[i + distance]
                    square[i], square[i + distance] = (
                        builder.shuffle_vector(*pair, places) for places in across_the_diagonal(distance)
                    )
            for k in range(lanes):
                store(builder, square[k], builder.add(right, builder.mul(to_row, I64(k))), size)

        with cgutils.for_range_slice(builder, I64(0), rows, span) as (n, _):
            beside = builder.add(source, builder.mul(row, n))
            above = builder.add(to, builder.mul(n, I64(size)))
            with cgutils.for_range_slice(builder, I64(0), K, span) as (k, _):
                left = builder.add(beside, builder.mul(k, I64(size)))
                right = builder.add(above, builder.mul(k, to_row))
                down, along = builder.sub(rows, n), builder.sub(K, k)
                full = [builder.icmp_signed(">=", count, span) for count in (down, along)]
                with builder.if_else(builder.and_(*full)) as (whole, part):
                    with whole:
                        turn_square(left, right, [None] * lanes)
                    with part:
                        there = [builder.icmp_signed("<", I64(i), down) for i in range(lanes)]
                        counts = [builder.select(is_there, along, I64(0)) for is_there in there]
                        turn_square(left, right, [first_lanes(builder, count, lanes) for count in counts])
        return context.get_dummy_value()

    return types.void(real, *[types.int64] * 6), generate


def make_rounding(order, some):
    """An intrinsic: two vectors of float32, rounded to bfloat16 and in that order, at `to`.

    Of `some` numbers the first low_count and high_count are read; zeros take the place of the others.
    """

    def generate(context, builder, signature, arguments):
        low, high, to, *counts = arguments
        floats, rounded = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(BFloat(), 2 * LANES)
        masks = [first_lanes(builder, count, LANES) for count in counts] or [None, None]
        vectors = [
            load_lanes(builder, *each) for each in ((low, floats, PAIR, masks[0]), (high, floats, PAIR, masks[1]))
        ]
        convert = declare(builder.module, "llvm.x86.avx512bf16.cvtne2ps2bf16.512", rounded, [floats] * 2)
        both = builder.bitcast(builder.call(convert, vectors[::-1]), ir.VectorType(I16, 2 * LANES))
        places = ir.Constant(ir.VectorType(I32, 2 * LANES), order)
        store(builder, builder.shuffle_vector(both, ir.Constant(both.type, ir.Undefined), places), to, 2)
        return context.get_dummy_value()

    if some:
        return intrinsic(
            lambda typingctx, low, high, to, low_count, high_count: (types.void(*[types.int64] * 5), generate)
        )
    return intrinsic(lambda typingctx, low, high, to: (types.void(*[types.int64] * 3), generate))


SIDE_BY_SIDE = list(range(2 * LANES))
IN_TURNS = [place // 2 + place % 2 * LANES for place in range(2 * LANES)]
neighbours, some_neighbours = make_rounding(SIDE_BY_SIDE, False), make_rounding(SIDE_BY_SIDE, True)
pairs, some_pairs = make_rounding(IN_TURNS, False), make_rounding(IN_TURNS, True)


@intrinsic
def weave(typingctx, low, high, both, to):
    """Put 32 pairs of bfloat16 at `to`: one from address `low`, and one from `high`, or a zero if not `both`."""
    row = ir.VectorType(I16, PAIRED)

    def generate(context, builder, signature, arguments):
        low, high, both, to = arguments
        there = builder.select(builder.icmp_signed("!=", both, I64(0)), I64(PAIRED), I64(0))
        rows = load(builder, low, row, 2), load_lanes(builder, high, row, 2, first_lanes(builder, there, PAIRED))
        for half in range(2):
            order = [half * LANES + place // 2 + place % 2 * PAIRED for place in range(PAIRED)]
            places = ir.Constant(ir.VectorType(I32, PAIRED), order)
            store(builder, builder.shuffle_vector(*rows, places), builder.add(to, I64(half * LINE)), 2)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@compiled
def pair_rows(source, row, columns, K, to, to_row):
    """K rows of bfloat16 as pairs of one above the other, a zero below the last if it is alone.

    Columns are read, and pairs written, PAIRED at a time: there is room beyond the last.
    """
    for k in range(0, K, 2):
        low, out, both = source + k * row, to + k // 2 * to_row, k + 1 < K
        for _ in range(0, columns, PAIRED):
            weave(low, low + row, both, out)
            low, out = low + LINE, out + 2 * LINE


@compiled
def lanes_left(count):
    """How many numbers of a vector count, 0 to LANES."""
    return max(0, min(count, LANES))


@compiled
def round_rows(source, row, rows, K, to, to_row):
    """Rows of K float32 as pairs of neighbours. The room of a row is a multiple of 64 bytes, the rest of it zeros."""
    for n in range(rows):
        low, out = source + n * row, to + n * to_row
        for _ in range(K // (2 * LANES)):
            neighbours(low, low + LANES * PAIR, out)
            low, out = low + 2 * LANES * PAIR, out + LANES * PAIR
        rest = K % (2 * LANES)
        if rest:
            some_neighbours(low, low + LANES * PAIR, out, lanes_left(rest), lanes_left(rest - LANES))


@compiled
def round_columns(source, row, columns, K, to, to_row):
    """K rows of float32 as pairs of one above the other, a zero below the last if it is alone.

    The room of a row of pairs is a multiple of 64 bytes.
    """
    for k in range(0, K, 2):
        low, out, both = source + k * row, to + k // 2 * to_row, k + 1 < K
        whole = columns // LANES if both else 0
        for _ in range(whole):
            pairs(low, low + row, out)
            low, out = low + LANES * PAIR, out + LANES * PAIR
        for i in range(whole * LANES, columns, LANES):
            count = lanes_left(columns - i)
            some_pairs(low, low + row, out, count, count if both else 0)
            low, out = low + LANES * PAIR, out + LANES * PAIR
