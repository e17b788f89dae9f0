"""Rows that are mostly zeros: where the others are, so that a product may skip the zeros, exactly.

Pixels, one-hot and hashed columns are mostly zero. GROUP rows of x share a list of the columns in which any of them is
not zero, for x W; GROUP columns share a list of the rows, for x^T dz. A skipped term would have added 0 * W: sums keep
their order, and the result is the same to the bit wherever W and dz are finite.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .cache import compiled
from .vector import (
    BYTES,
    I8,
    I16,
    I32,
    I64,
    REALS,
    broadcast,
    declare,
    first_lanes,
    has_compress,
    load,
    load_lanes,
    register_bytes,
    store,
    zeros,
)

GROUP = 4  # rows, or columns, that share a list: as many as the block of a product over a list has
WORD = 64  # columns whose marks share an integer
MARKS = 32  # marks looked at together
APART = 8  # numbers more a word, a cache line: at a power of two a row's words would fall on each other in the cache
SAMPLE = 256  # rows that speak for the others
BYTE = 8  # bits
LOW = np.uint64(2**BYTE - 1)
HALF = np.uint64(2**MARKS - 1)
MOST = 2**16  # rows or columns that an entry of a list can name
# PLACES[byte] names the bits of a byte that are set, lowest first; what follows them does not count.
PLACES = np.array([sorted(range(BYTE), key=lambda bit: not byte >> bit & 1) for byte in range(2**BYTE)], np.uint16)
# Steps that bring the marks of a word's groups, each set if any in the group is, to the word's lowest bits: the word is
# joined with itself, shifted by so many bits, and only these are kept; 0 keeps all.
NEARER = ((1, 0), (2, 0x1111111111111111), (3, 0x0303030303030303), (6, 0x000F000F000F000F), (12, 0x000000FF000000FF),
          (24, 0))  # fmt: skip


class Marked(NamedTuple):
    """Rows with the places of their non-zeros; the compiled operations take it in the place of an array x.

    A list has room for MARKS entries more than it can have: they are written many at a time.
    """

    x: np.ndarray  # (N, I)
    bits: np.ndarray  # (words, more than N) uint64: of each row, a mark a column that is not zero
    columns: np.ndarray  # (N/GROUP, I + MARKS) uint16: of each group of rows, the columns to visit
    column_counts: np.ndarray  # (N/GROUP,) int64
    groups: np.ndarray  # (I/GROUP or more, N/MARKS) uint32: of each group of columns, a mark a row to visit
    rows: np.ndarray  # (I/GROUP or more, N + MARKS) uint16: these rows
    row_counts: np.ndarray  # (I/GROUP or more,) int64


def room_for_marks(x, zeros):
    """A `Marked` for the buffer x (N, I), its lists not yet made, of arrays that zeros(shape, dtype) makes."""
    N, I = x.shape
    words, looks = -(-I // WORD), -(-N // MARKS)
    groups = words * WORD // GROUP
    return Marked(
        x, zeros((words, looks * MARKS + APART), np.uint64),
        zeros((N // GROUP, I + MARKS), np.uint16), zeros((N // GROUP,), np.int64),
        zeros((groups, looks), np.uint32), zeros((groups, N + MARKS), np.uint16), zeros((groups,), np.int64),
    )  # fmt: skip


def worth_marking(X):
    """Whether X (M, I) has so many zeros, and rows, that finding them and visiting the others only is faster."""
    if len(X) < SAMPLE or not WORD <= X.shape[1] < MOST:
        return False
    groups = X[:SAMPLE].reshape(-1, GROUP, X.shape[1])
    return bool((groups != 0).any(axis=1).mean() < 0.6)


def make_marks(some):
    """An intrinsic: a bit for each of WORD numbers at an address, or of the first `count` of them, that is not zero."""

    def generate(context, builder, signature, arguments):
        address, *count = arguments[1:]
        name = str(signature.args[0].dtype)
        size, number = (1, I8) if name == "uint8" else (BYTES[name], REALS[name])
        lanes = min(register_bytes() // size, WORD)
        vector, bits = ir.VectorType(number, lanes), I64(0)
        for first in range(0, WORD, lanes):
            mask = None
            if some:
                left = builder.sub(count[0], I64(first))
                mask = first_lanes(builder, builder.select(builder.icmp_signed("<", left, I64(0)), I64(0), left), lanes)
            numbers = load_lanes(builder, builder.add(address, I64(first * size)), vector, size, mask)
            if number == I8:
                marks = builder.icmp_unsigned("!=", numbers, zeros(vector))
            else:
                marks = builder.fcmp_unordered("!=", numbers, zeros(vector))  # a NaN is not zero
            marks = builder.bitcast(marks, ir.IntType(lanes))
            marks = marks if lanes == WORD else builder.shl(builder.zext(marks, I64), I64(first))
            bits = builder.or_(bits, marks)
        return bits

    if some:
        return intrinsic(
            lambda typingctx, like, address, count: (types.uint64(like, types.int64, types.int64), generate)
        )
    return intrinsic(lambda typingctx, like, address: (types.uint64(like, types.int64), generate))


marks_at, some_marks_at = make_marks(False), make_marks(True)


@intrinsic
def count_bits(typingctx, bits):
    """How many bits are set."""

    def generate(context, builder, signature, arguments):
        return builder.call(declare(builder.module, "llvm.ctpop.i64", I64, [I64]), arguments)

    return types.int64(types.uint64), generate


@intrinsic
def add_places(typingctx, places, first, out):
    """Put the eight uint16 at address `places`, `first` added to each, at address `out`."""
    eight = ir.VectorType(I16, BYTE)

    def generate(context, builder, signature, arguments):
        places, first, out = arguments
        found = load(builder, places, eight, 2)
        store(builder, builder.add(found, broadcast(builder, builder.trunc(first, I16), eight)), out, 2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def squeeze(typingctx, marks, first, out):
    """Put the places of MARKS marks that are set, `first` added to each, at address `out`; AVX-512 VBMI2."""
    numbers, bits = ir.VectorType(I16, MARKS), ir.VectorType(ir.IntType(1), MARKS)

    def generate(context, builder, signature, arguments):
        marks, first, out = arguments
        mask = builder.bitcast(builder.trunc(marks, I32), bits)
        places = ir.Constant(numbers, list(range(MARKS)))
        places = builder.add(places, broadcast(builder, builder.trunc(first, I16), numbers))
        compress = declare(builder.module, "llvm.x86.avx512.mask.compress.v32i16", numbers, [numbers, numbers, bits])
        store(builder, builder.call(compress, [places, zeros(numbers), mask]), out, 2)
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, types.int64), generate


@compiled
def append_at_once(out, count, marks, first):
    """Add the places of MARKS marks, counted from `first`, to the list at address `out`; returns its new length."""
    squeeze(marks, first, out + 2 * count)
    return count + count_bits(marks)


@compiled
def append_by_bytes(out, count, marks, first):
    """`append_at_once` on any CPU."""
    for bit in range(0, MARKS, BYTE):
        byte = (marks >> np.uint64(bit)) & LOW
        add_places(PLACES.ctypes.data + 2 * BYTE * np.int64(byte), first + bit, out + 2 * count)
        count += count_bits(byte)
    return count


append = append_at_once if has_compress() else append_by_bytes


@compiled
def mark(X, order, first, last, bits):
    """Set the bits (words, last - first or more) of the columns in which rows order[first:last] of X are not zero.

    X (M, I).
    """
    I = X.shape[1]
    word = WORD * X.itemsize
    for n in range(last - first):
        row = first + n if order is None else order[first + n]
        start = X.ctypes.data + row * X.strides[0]
        for i in range(I // WORD):
            bits[i, n] = marks_at(X, start + i * word)
        if I % WORD:
            bits[I // WORD, n] = some_marks_at(X, start + I // WORD * word, I % WORD)


@compiled
def list_columns(marked, n):
    """Of each whole group of the first n rows, the columns in which any of them is not zero."""
    bits = marked.bits
    for group in range(n // GROUP):
        count, first = 0, group * GROUP
        out = marked.columns.ctypes.data + group * marked.columns.strides[0]
        for word in range(len(bits)):
            marks = np.uint64(0)
            for row in range(first, first + GROUP):
                marks |= bits[word, row]
            count = append(out, count, marks & HALF, word * WORD)
            count = append(out, count, marks >> np.uint64(MARKS), word * WORD + MARKS)
        marked.column_counts[group] = count


@intrinsic
def mark_groups(typingctx, bits, out, step):
    """Of MARKS rows, whose bits of a word lie at an address, the marks of its groups of columns.

    A uint32 a group, a mark a row in which any of the group's columns is not zero, `step` bytes from group to group.
    """
    words, halves = ir.VectorType(I64, MARKS), ir.VectorType(I16, MARKS)

    def generate(context, builder, signature, arguments):
        bits, out, step = arguments
        marks = load(builder, bits, words, 8)
        for distance, kept in NEARER:
            marks = builder.or_(marks, builder.lshr(marks, ir.Constant(words, [distance] * MARKS)))
            if kept:
                marks = builder.and_(marks, ir.Constant(words, [kept] * MARKS))
        marks = builder.trunc(marks, halves)
        for group in range(WORD // GROUP):
            lowest = builder.and_(marks, ir.Constant(halves, [1 << group] * MARKS))
            found = builder.bitcast(builder.icmp_unsigned("!=", lowest, zeros(halves)), I32)
            store(builder, found, builder.add(out, builder.mul(step, I64(group))), 4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@compiled
def list_rows(marked, n):
    """Of each group of columns, the rows among the first n in which any of them is not zero."""
    bits, groups, rows = marked.bits, marked.groups, marked.rows
    per_word, looks = WORD // GROUP, (n + MARKS - 1) // MARKS
    beyond = looks * MARKS - n  # rows that are looked at with the last, and do not count
    for word in range(len(bits)):
        left = bits.ctypes.data + word * bits.strides[0]
        right = groups.ctypes.data + word * per_word * groups.strides[0]
        for look in range(looks):
            mark_groups(left + look * MARKS * bits.itemsize, right + look * groups.itemsize, groups.strides[0])
    for group in range(len(bits) * per_word):
        groups[group, looks - 1] &= HALF >> np.uint64(beyond)
        count, out = 0, rows.ctypes.data + group * rows.strides[0]
        for look in range(looks):
            count = append(out, count, np.uint64(groups[group, look]), look * MARKS)
        marked.row_counts[group] = count
