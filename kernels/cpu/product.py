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
from .microkernel import LISTED, LISTED_RELU, MASK, PLAIN, RELU, Matrix, Shape, emit_block
from .vector import (
    BYTES,
    I8,
    I64,
    REALS,
    declare,
    first_lanes,
    load_lanes,
    pointer,
    register_bytes,
    store,
    store_lanes,
)

# Rows and vectors of the largest block, by bytes of a register. AVX-512 has 32 registers: 28 accumulate, 2 hold B and
# one broadcasts A; AVX2 and SSE have 16, NEON 32.
BLOCK = {64: (14, 2), 32: (6, 2), 16: (6, 2)}
LISTED_BLOCK = {64: (4, 5), 32: (4, 3), 16: (4, 3)}  # few rows share a list of k; the more columns, the better
DEPTH = 512  # k at a time: so much of a panel of B stays in the caches while the rows of A pass over it
BLOCK_OF_A = 2**19  # bytes of A that stay in the L2 cache while the panels of B pass
LEAST_ROWS = 112  # of A at a time: a copy of a panel of B must pay
WAY = 4096  # bytes after which addresses fall into the same set of an L1 cache
LINE = 64  # bytes of a cache line
PACKED_ROWS = 28  # rows of A from which on a copy of a panel of B pays
FAR = 1024  # bytes from row to row of B from which on it does
ARGUMENTS = 14
PUBLISHED = {}  # the C functions, by type
LOCK = Lock()  # of the above: two threads may ask for the first time at once


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
        move(builder.mul(done, I64(size)), first_lanes(builder, builder.sub(count, done), lanes))
        return context.get_dummy_value()

    return types.void(real, types.int64, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def loops(typingctx, real, finish, a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K,
          panel):  # fmt: skip
    """C = finish(start + A B), panel by panel of columns, each block by block of rows.

    `real` and `finish` are literal text; the rest are addresses, strides in bytes, and sizes: A (M, K), B (K, N).
    A[i, k] is at a + i*a_row + k*a_step; rows of the others are contiguous. start_row 0 begins each row alike, with a
    bias; start may be C itself, to accumulate, or 0, to begin with zeros. gate is read by the MASK finish only. With a
    LISTED finish M is 4, and gate is the address of the list of K numbers, uint16: the k to visit. `panel` is the address
    of room for K rows of a panel of B, to copy it there first, or 0.
    """
    type_, ending = real.literal_value, finish.literal_value
    over_list = ending in (LISTED, LISTED_RELU)
    most_rows, most_vectors = (LISTED_BLOCK if over_list else BLOCK)[register_bytes()]
    heights = [most_rows] if over_list else [most_rows, *(height for height in (8, 4, 2, 1) if height < most_rows)]
    size = BYTES[type_]
    lanes = register_bytes() // size

    def generate(context, builder, signature, arguments):
        a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K, panel = arguments[2:]

        def emit_packed(B, vectors, mask):
            """The panel of B to work on: where it is, or its copy."""
            width, vector = register_bytes(), ir.VectorType(REALS[type_], lanes)
            copies = builder.icmp_signed("!=", panel, I64(0))
            with builder.if_then(copies), cgutils.for_range(builder, K) as k:
                to = builder.add(panel, builder.mul(k.index, I64(vectors * width)))
                for j in range(vectors):
                    source = B.moved(builder, k.index, I64(j * width)).address
                    store(builder, load_lanes(builder, source, vector, size, mask), builder.add(to, I64(j * width)), size)
            row = builder.select(copies, I64(vectors * width), B.row)
            return Matrix(builder.select(copies, panel, B.address), row)

        def emit_deep_block(shape, m, across, mask, B):
            A = Matrix(a, a_row, a_step).moved(builder, m)
            C = Matrix(c, c_row).moved(builder, m, across)
            G = Matrix(gate, gate_row).moved(builder, m, across)
            S = Matrix(start, start_row).moved(builder, m, across)
            given = builder.icmp_signed("!=", start, I64(0))  # address 0 stays 0
            S = S._replace(address=builder.select(given, S.address, I64(0)))
            emit_block(builder, shape, ending, A, B, S, C, G, K, mask, gate if over_list else None)

        def emit_panel(vectors, across, mask=None):
            top = I64(0)  # rows done
            B = Matrix(b, b_row).moved(builder, I64(0), across)
            if not over_list:
                B = emit_packed(B, vectors, mask)
            for height in heights:
                blocks = builder.sdiv(builder.sub(M, top), I64(height))
                with cgutils.for_range(builder, blocks) as block:
                    m = builder.add(top, builder.mul(block.index, I64(height)))
                    emit_deep_block(Shape(type_, height, vectors, lanes), m, across, mask, B)
                top = builder.add(top, builder.mul(blocks, I64(height)))

        done = I64(0)  # columns
        for vectors in dict.fromkeys((most_vectors, 2, 1)):
            columns = I64(vectors * lanes)
            panels = builder.sdiv(builder.sub(N, done), columns)
            with cgutils.for_range(builder, panels) as place:
                column = builder.add(done, builder.mul(place.index, columns))
                emit_panel(vectors, builder.mul(column, I64(size)))
            done = builder.add(done, builder.mul(panels, columns))
        rest = builder.sub(N, done)
        with builder.if_then(builder.icmp_signed(">", rest, I64(0))):
            emit_panel(1, builder.mul(done, I64(size)), first_lanes(builder, rest, lanes))
        return context.get_dummy_value()

    return types.void(real, finish, *[types.int64] * (ARGUMENTS + 1)), generate


def symbol(real, finish):
    """The name under which compiled code finds a kind of product."""
    return f"fastmlp_product_{real}_{finish}"


def publish(real):
    """Make the products of numbers of type `real` known to compiled code: compiled or loaded, once in a process."""
    with LOCK:
        if real not in PUBLISHED:
            PUBLISHED[real] = published(real)


def published(real):
    """The products of numbers of type `real`, as C functions whose names are known while they live."""
    functions = []
    for finish in (PLAIN, RELU, MASK, LISTED, LISTED_RELU):
        functions.append(compile_product(real, finish))
        llvm.add_symbol(symbol(real, finish), functions[-1].address)
    return functions


def compile_product(real, finish):
    """One kind of product as a C function, from the compile cache where it is there."""

    size = BYTES[real]
    panel_bytes = DEPTH * BLOCK[register_bytes()][1] * register_bytes()
    row_bytes = DEPTH * size + LINE

    def over_list(a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K):
        loops(real, finish, a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K, 0)

    def product(a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K):
        most = max(LEAST_ROWS, BLOCK_OF_A // (max(K, 1) * size) // LEAST_ROWS * LEAST_ROWS)
        collide = K <= DEPTH and a_step == size and a_row % WAY == 0 and N * size > LINE
        packs = K <= DEPTH and M >= PACKED_ROWS and b_row >= FAR
        room = reserve(packs * panel_bytes + collide * min(M, most) * row_bytes) if packs or collide else 0
        copy = room + packs * panel_bytes
        for m in range(0, M, most):
            rows = min(most, M - m)
            left, left_row, begin = a + m * a_row, a_row, start + m * start_row if start else 0
            if collide and room:
                for row in range(rows):
                    copy_numbers(real, left + row * a_row, copy + row * row_bytes, K)
                left, left_row = copy, row_bytes
            loops(real, finish, left, left_row, a_step, b, b_row, begin, start_row, c + m * c_row, c_row,
                  gate + m * gate_row, gate_row, rows, N, K, packs * room)  # fmt: skip
        if room:
            release(room)

    if finish in (LISTED, LISTED_RELU):
        product = over_list
    product.__qualname__ = f"{symbol(real, finish)}_{KERNELS}"
    return with_cache(partial(cfunc, types.void(*[types.int64] * ARGUMENTS)), product)


def make_call(finish):
    """An intrinsic that calls a published product; its first argument is an array of the type of the numbers."""

    @intrinsic
    def call(typingctx, like, a, a_row, a_step, b, b_row, start, start_row, c, c_row, gate, gate_row, M, N, K):
        name = symbol(str(like.dtype), finish)

        def generate(context, builder, signature, arguments):
            builder.call(declare(builder.module, name, ir.VoidType(), [I64] * ARGUMENTS), arguments[1:])
            return context.get_dummy_value()

        return types.void(like, *[types.int64] * ARGUMENTS), generate

    return call


multiply, multiply_relu, multiply_mask = make_call(PLAIN), make_call(RELU), make_call(MASK)
multiply_listed, multiply_listed_relu = make_call(LISTED), make_call(LISTED_RELU)
