"""The microkernel: a block of a matrix product held in vector registers, as LLVM code of our own.

Numba's own loops leave the accumulators in memory; written as phi nodes they stay in registers, and the block runs at
the CPU's peak. One operand is broadcast number by number through any two strides, so the same code multiplies x W
(broadcast along the rows of x) and x^T dz (along its columns), and neither is packed or transposed.
"""

import math
from typing import NamedTuple

from llvmlite import ir

from .vector import (
    BFLOAT16,
    BYTES,
    I16,
    I32,
    I64,
    REALS,
    BFloat,
    broadcast,
    declare,
    has_fma,
    load,
    load_lanes,
    store_lanes,
    zeros,
)

# What is done to a block before it is stored; a product is told when it is called.
PLAIN = 0  # C as it is
RELU = 1  # C = max(C, 0); a NaN stays one
MASK = 2  # C = C where gate > 0, else 0: the derivative of ReLU


class Shape(NamedTuple):
    """A block of C: `rows` by `vectors` registers of `lanes` numbers each."""

    real: str  # "float32", "float64" or "bfloat16"
    rows: int
    vectors: int
    lanes: int


class Matrix(NamedTuple):
    """A matrix in memory: the address of its first number and the bytes from row to row, LLVM integers.

    Its rows are contiguous, but for A, whose numbers are `step` bytes apart along k. A stride of 0 repeats one row.
    """

    address: ir.Value
    row: ir.Value
    step: ir.Value | None = None

    def moved(self, builder, rows, step_bytes=0):
        """The matrix from row `rows` on, `step_bytes` further to the right."""
        address = builder.add(self.address, builder.mul(self.row, rows))
        return self._replace(address=builder.add(address, step_bytes) if step_bytes else address)


def emit_block(builder, shape, finish, A, B, start, C, gate, K, mask=None, listed=None):
    """Emit C = finish(start + A B) for one block: A (rows, K), B (K, vectors*lanes), the others (rows, vectors*lanes).

    A mask, of the last vector, leaves the columns it switches off unread and unwritten.
    `listed` is the address of K numbers (uint16), the only k to visit, in this order; None visits 0 .. K-1. Over a list
    there is no MASK.
    start may have row stride 0, to begin each row with a bias, be C itself, to accumulate, or be at address 0: zeros.
    """
    real, size = REALS[shape.real], BYTES[shape.real]
    vector = ir.VectorType(real, shape.lanes)
    factor = I32 if shape.real == BFLOAT16 else real  # of A and B: a number, or a pair of k
    factors = ir.VectorType(factor, shape.lanes)
    width = size * shape.lanes
    block = [(i, j) for i in range(shape.rows) for j in range(shape.vectors)]

    def multiply_add(left, right, total):
        if shape.real == BFLOAT16:
            pairs = ir.VectorType(BFloat(), 2 * shape.lanes)
            name = "llvm.x86.avx512bf16.dpbf16ps.512"
            arguments = [total, builder.bitcast(left, pairs), builder.bitcast(right, pairs)]
        else:
            name = f"llvm.{'fma' if has_fma() else 'fmuladd'}.v{shape.lanes}f{8 * size}"
            arguments = [left, right, total]
        return builder.call(declare(builder.module, name, vector, [each.type for each in arguments]), arguments)

    def mask_of(j):
        return mask if j == shape.vectors - 1 else None

    def at(matrix, i, j):
        return builder.add(matrix.moved(builder, I64(i)).address, I64(j * width))

    rows = [A.moved(builder, I64(i)).address for i in range(shape.rows)]
    with builder.if_else(builder.icmp_signed("!=", start.address, I64(0))) as (given, absent):
        with given:
            first = {(i, j): load_lanes(builder, at(start, i, j), vector, size, mask_of(j)) for i, j in block}
            from_start = builder.block
        with absent:
            from_zero = builder.block
    begin = {place: builder.phi(vector) for place in block}
    for place in block:
        begin[place].add_incoming(first[place], from_start)
        begin[place].add_incoming(zeros(vector), from_zero)

    before = builder.block
    loop, done = builder.append_basic_block("k"), builder.append_basic_block("done")
    builder.cbranch(builder.icmp_signed(">", K, I64(0)), loop, done)

    builder.position_at_end(loop)
    k = builder.phi(I64)
    total = {place: builder.phi(vector) for place in block}
    if listed is None:
        across, down = builder.phi(I64), builder.phi(I64)  # offset along the rows of A; address of row k of B
        steps = [(k, I64(0), I64(1)), (across, I64(0), A.step), (down, B.address, B.row)]
    else:
        visited = builder.zext(load(builder, builder.add(listed, builder.mul(k, I64(2))), I16, 2), I64)
        across, down = builder.mul(visited, A.step), builder.add(B.address, builder.mul(visited, B.row))
        steps = [(k, I64(0), I64(1))]
    row_of_B = [
        load_lanes(builder, builder.add(down, I64(j * width)), factors, size, mask_of(j)) for j in range(shape.vectors)
    ]
    following = {}
    for i in range(shape.rows):
        number = broadcast(builder, load(builder, builder.add(rows[i], across), factor, size), factors)
        for j in range(shape.vectors):
            following[i, j] = multiply_add(number, row_of_B[j], total[i, j])
    for phi, origin, step in steps:
        phi.add_incoming(origin, before)
        phi.add_incoming(builder.add(phi, step), loop)
    for place in block:
        total[place].add_incoming(begin[place], before)
        total[place].add_incoming(following[place], loop)
    builder.cbranch(builder.icmp_signed("<", builder.add(k, I64(1)), K), loop, done)

    builder.position_at_end(done)
    results = {place: builder.phi(vector) for place in block}
    zero = zeros(vector)
    for (i, j), result in results.items():
        result.add_incoming(begin[i, j], before)
        result.add_incoming(following[i, j], loop)
    low = builder.select(
        builder.icmp_signed("==", finish, I64(RELU)), ir.Constant(real, 0), ir.Constant(real, -math.inf)
    )
    low = broadcast(builder, low, vector)

    def store_all():
        for (i, j), result in results.items():
            raised = builder.select(builder.fcmp_ordered("<", result, low), low, result)
            store_lanes(builder, raised, at(C, i, j), size, mask_of(j))

    if listed is not None:
        store_all()
        return
    with builder.if_else(builder.icmp_signed("==", finish, I64(MASK))) as (masks, goes_on):
        with masks:
            for (i, j), result in results.items():
                passes = builder.fcmp_ordered(">", load_lanes(builder, at(gate, i, j), vector, size, mask_of(j)), zero)
                store_lanes(builder, builder.select(passes, result, zero), at(C, i, j), size, mask_of(j))
        with goes_on:
            store_all()
