"""Matrix products of any size, made of microkernels.

The loops over microkernels are long, and Numba compiles a function anew into each function that calls it. So each
kind of product is compiled once, as a C function, and given a name by which compiled code finds it.

Rows whose distance is a multiple of a cache's own size fall on top of each other in it. Where the rows of A or of B do,
or where those of B lie far apart, a copy of the part at work lies close; it costs a few percent of what it saves.
"""

from functools import partial
from threading import Lock

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from .cache import KERNELS, with_cache
from .microkernel import PLAIN, Matrix, Shape, emit_block
from .packing import (
    LINE,
    PAIR,
    SINGLE,
    copy_numbers,
    pair_rows,
    prefetch,
    release,
    reserve,
    round_columns,
    round_rows,
    turn_numbers,
)
from .vector import BFLOAT16, BYTES, I64, declare, first_lanes, register_bytes

# Rows and vectors of the largest block, by bytes of a register. AVX-512 has 32 registers: 28 accumulate, 2 hold B and
# one broadcasts A; AVX2 and SSE have 16, NEON 32.
BLOCK = {64: (14, 2), 32: (6, 2), 16: (6, 2)}
LISTED_BLOCK = {64: (4, 5), 32: (4, 3), 16: (4, 3)}  # few rows share a list of k; the more columns, the better
DEPTH = 512  # k at a time: so much of a panel of B stays in the caches while the rows of A pass over it
BLOCK_OF_A = 2**19  # bytes of A that stay in the L2 cache while the panels of B pass
LEAST_ROWS = 112  # of A at a time: a copy of a panel of B must pay
WAY = 4096  # bytes after which addresses fall into the same set of an L1 cache
NARROW_ROWS = 4  # of A at a time that do not push each other out of the L1 cache, however they lie
PANELS = 2**18  # bytes of B to copy at a time
AHEAD = 16  # rows of B that are asked for before the one that is copied: they come from far away
PACKED_ROWS = 15  # rows of A, more than a block has, from which on a copy of a panel of B pays
FAR = 1024  # bytes from row to row of B from which on it does
DENSE, LISTED = "dense", "listed"  # kinds of products: over all k, and over a list of k, see `sparse`
ARGUMENTS = 16
PUBLISHED = {}  # the C functions, by type
LOCK = Lock()  # of the above: two threads may ask for the first time at once


@intrinsic(prefer_literal=True)
def loops(typingctx, real, kind, a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K,
          finish):  # fmt: skip
    """C = finish(start + A B), panel by panel of columns, each block by block of rows.

    `real` and `kind` are literal text; the rest are addresses, strides in bytes, and sizes: A (M, K), B (K, N).
    A[i, k] is at a + i*a_row + k*a_step; rows of the others are contiguous. start_row 0 begins each row alike, with a
    bias; start may be C itself, to accumulate, or 0, to begin with zeros. gate is read where the finish is MASK. A
    LISTED product has M = 4, and gate is the address of the list of K numbers, uint16: the k to visit.
    In bfloat16 A and B hold pairs of k, and K counts the pairs.
    """
    type_, over_list = real.literal_value, kind.literal_value == LISTED
    most_rows, most_vectors = (LISTED_BLOCK if over_list else BLOCK)[register_bytes()]
    heights = [most_rows] if over_list else [most_rows, *(height for height in (8, 4, 2, 1) if height < most_rows)]
    size = BYTES[type_]
    lanes = register_bytes() // size

    def generate(context, builder, signature, arguments):
        a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K, finish = arguments[2:]

        def emit_deep_block(shape, m, across, mask):
            A = Matrix(a, a_row, a_step).moved(builder, m)
            B = Matrix(b, b_row).moved(builder, I64(0), across)
            C = Matrix(c, c_row).moved(builder, m, across)
            G = Matrix(gate, gate_row).moved(builder, m, across)
            S = Matrix(start, start_row).moved(builder, m, across)
            given = builder.icmp_signed("!=", start, I64(0))  # address 0 stays 0
            S = S._replace(address=builder.select(given, S.address, I64(0)))
            emit_block(builder, shape, finish, A, B, S, C, G, K, mask, gate if over_list else None)

        def emit_panel(vectors, across, mask=None):
            top = I64(0)  # rows done
            for height in heights:
                blocks = builder.sdiv(builder.sub(M, top), I64(height))
                if height == most_rows and not over_list:  # two rows at the end would wait for sums: 14 + 2 is 8 + 8
                    two = builder.icmp_signed("!=", builder.and_(builder.srem(M, I64(height)), I64(2)), I64(0))
                    fewer = builder.and_(two, builder.icmp_signed(">", blocks, I64(0)))
                    blocks = builder.sub(blocks, builder.zext(fewer, I64))
                with cgutils.for_range(builder, blocks) as block:
                    m = builder.add(top, builder.mul(block.index, I64(height)))
                    emit_deep_block(Shape(type_, height, vectors, lanes), m, across, mask)
                top = builder.add(top, builder.mul(blocks, I64(height)))

        columns = I64(most_vectors * lanes)
        panels = builder.sdiv(N, columns)
        with cgutils.for_range(builder, panels) as place:
            emit_panel(most_vectors, builder.mul(builder.mul(place.index, columns), I64(size)))
        done = builder.mul(panels, columns)
        rest = builder.sub(N, done)
        for vectors in range(1, most_vectors + 1):
            last = builder.sub(rest, I64((vectors - 1) * lanes))  # columns in the last vector
            some, fit = builder.icmp_signed(">", last, I64(0)), builder.icmp_signed("<=", last, I64(lanes))
            with builder.if_then(builder.and_(some, fit)):
                emit_panel(vectors, builder.mul(done, I64(size)), first_lanes(builder, last, lanes))
        return context.get_dummy_value()

    return types.void(real, kind, *[types.int64] * (ARGUMENTS - 1)), generate  # all but b_step


def symbol(real, kind):
    """The name under which compiled code finds a kind of product."""
    return f"fastmlp_product_{real}_{kind}"


def publish(real):
    """Make the products of numbers of type `real` known to compiled code: compiled or loaded, once in a process."""
    with LOCK:
        if real not in PUBLISHED:
            PUBLISHED[real] = published(real)


def published(real):
    """The products of numbers of type `real`, as C functions whose names are known while they live."""
    functions = []
    for kind, make in KINDS[real].items():
        function = make(real)
        function.__qualname__ = f"{symbol(real, kind)}_{KERNELS}"
        compiled = with_cache(partial(cfunc, types.void(*[types.int64] * ARGUMENTS)), function)
        llvm.add_symbol(symbol(real, kind), compiled.address)
        functions.append(compiled)
    return functions


def panel_bytes():
    """Bytes of a row of a panel of B."""
    return BLOCK[register_bytes()][1] * register_bytes()


def product_over_list(real):
    """A product over a list of k."""

    def multiply(a, a_row, a_step, b, b_row, b_step, start, start_row, c, c_row, gate, gate_row, M, N, K, finish):
        loops(real, LISTED, a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K, finish)

    return multiply


def product(real):
    """A product that takes k in pieces, and copies rows of A that would collide and panels of B that lie far apart.

    A panel of B whose numbers are neighbours along k is turned on its way to the copy.
    """
    size, row, width = BYTES[real], DEPTH * BYTES[real] + LINE, panel_bytes()
    square = register_bytes() // size  # numbers a side

    def multiply(a, a_row, a_step, b, b_row, b_step, start, start_row, c, c_row, gate, gate_row, M, N, K, finish):
        turned = b_step != size
        narrow = N * size <= LINE and not turned  # B is small: the rows of A are read from end to end
        copies = turned or (b_row >= FAR and M >= PACKED_ROWS and not narrow)
        deep = DEPTH
        if narrow:
            deep = K
        elif b_row >= FAR and not copies:  # read in no more streams than the CPU follows
            deep = 16 if M >= 8 else 8
        deep = max(1, min(deep, K))
        collide = a_step == size and a_row % WAY == 0
        most = max(LEAST_ROWS, BLOCK_OF_A // (deep * size) // LEAST_ROWS * LEAST_ROWS)
        if collide and narrow:  # a copy of A would take as long as the product
            most, collide = NARROW_ROWS, False
        high = (deep + square - 1) // square * square  # rows of a panel: whole squares, where they are turned
        panels = 1 if turned else max(1, min(PANELS // (high * width), (N * size + width - 1) // width))  # at a time
        copied = copies * panels * high * width
        room = reserve(copied + collide * min(M, most) * row) if copies or collide else 0
        columns = max(N, 1)
        if copies and room:
            columns = width // size
        elif turned:  # no memory: column by column, each where it lies
            columns = 1
        for k in range(0, max(K, 1), deep):
            pieces, ending = min(deep, K - k), finish if k + deep >= K else PLAIN
            begin, begin_row = (c, c_row) if k else (start, start_row)
            for m in range(0, M, most):
                rows, left, left_row = min(most, M - m), a + k * a_step + m * a_row, a_row
                if collide and room:
                    for i in range(rows):
                        copy_numbers(real, left + i * a_row, room + copied + i * row, pieces)
                    left, left_row = room + copied, row
                for n in range(0, N, columns):
                    right, right_row, across = b + k * b_row + n * b_step, b_row, min(columns, N - n)
                    if copies and room:
                        place = n // columns % panels
                        if turned:
                            turn_numbers(real, right, b_step, across, pieces, room + place * high * width, width)
                        elif not place:
                            for i in range(pieces):
                                for panel in range(min(panels, (N - n + columns - 1) // columns)):
                                    source = right + i * b_row + panel * width
                                    for line in range(0, width, LINE):
                                        prefetch(source + AHEAD * b_row + line)
                                    copy_numbers(real, source, room + (panel * high + i) * width,
                                                 min(columns, N - n - panel * columns))  # fmt: skip
                        right, right_row = room + place * high * width, width
                    loops(real, DENSE, left, left_row, a_step, right, right_row,
                          begin + m * begin_row + n * size if begin else 0, begin_row, c + m * c_row + n * size, c_row,
                          gate + m * gate_row + n * size, gate_row, rows, across, pieces, ending)  # fmt: skip
        release(room)

    return multiply


def rounded_product(real):
    """A product of float32 rounded to bfloat16 on their way to the registers; sums stay float32.

    The numbers of A are neighbours either along k or from row to row, and so are those of B. A may be rounded already,
    which the bytes between its neighbours tell: then a zero follows an odd K along k, and where numbers are neighbours
    from row to row there is room for `pair_rows` to read on.
    """
    most_rows, deep, width = 8 * LEAST_ROWS, 2 * DEPTH, panel_bytes()  # numbers are half as long
    row, step = deep // 2 * PAIR + LINE, most_rows * PAIR + LINE  # from row to row, or from k to k
    panel, columns = deep // 2 * width, width // PAIR

    def multiply(a, a_row, a_step, b, b_row, b_step, start, start_row, c, c_row, gate, gate_row, M, N, K, finish):
        room = reserve(panel + columns * row + max(most_rows * row, deep // 2 * step))
        upright = room + panel  # columns of B, before they are turned
        copy = upright + columns * row
        left_row, left_step = (row, PAIR) if a_step == PAIR else (a_row, PAIR) if a_step == SINGLE else (PAIR, step)
        for k in range(0, max(K, 1), deep):
            pieces, ending = min(deep, K - k), finish if k + deep >= K else PLAIN
            begin, begin_row = (c, c_row) if k else (start, start_row)
            most = min(most_rows, max(1, BLOCK_OF_A * 2 // PAIR // max(pieces, 1) // LEAST_ROWS) * LEAST_ROWS)
            for m in range(0, M, most):
                rows, source = min(most, M - m), a + k * a_step + m * a_row
                left = source if a_step == SINGLE else copy
                if a_row == SINGLE:
                    pair_rows(source, a_step, rows, pieces, left, step)
                elif a_step == PAIR:
                    round_rows(source, a_row, rows, pieces, left, row)
                elif a_step != SINGLE:
                    round_columns(source, a_step, rows, pieces, left, step)
                for n in range(0, N, columns):
                    across, to = min(columns, N - n), n * PAIR
                    if b_step == PAIR:
                        round_columns(b + k * b_row + to, b_row, across, pieces, room, width)
                    else:
                        round_rows(b + k * b_row + n * b_step, b_step, across, pieces, upright, row)
                        turn_numbers(real, upright, row, across, (pieces + 1) // 2, room, width)
                    loops(real, DENSE, left, left_row, left_step, room, width,
                          begin + m * begin_row + to if begin else 0, begin_row, c + m * c_row + to, c_row,
                          gate + m * gate_row + to, gate_row, rows, across, (pieces + 1) // 2, ending)  # fmt: skip
        release(room)

    return multiply


KINDS = {  # by type, and kind: what makes the function
    "float32": {DENSE: product, LISTED: product_over_list},
    "float64": {DENSE: product, LISTED: product_over_list},
    BFLOAT16: {DENSE: rounded_product},
}


def make_call(kind):
    """An intrinsic that calls a published product; its first argument is an array of the type of the numbers.

    float32 seen as uint32, the same bits, asks for a product of numbers rounded to bfloat16.
    """

    @intrinsic
    def call(typingctx, like, a, a_row, a_step, b, b_row, b_step, start, start_row, c, c_row, gate, gate_row, M, N, K,
             finish):  # fmt: skip
        real = str(like.dtype)
        name = symbol(BFLOAT16 if real == "uint32" else real, kind)

        def generate(context, builder, signature, arguments):
            builder.call(declare(builder.module, name, ir.VoidType(), [I64] * ARGUMENTS), arguments[1:])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * ARGUMENTS), generate

    return call


multiply, multiply_listed = make_call(DENSE), make_call(LISTED)
