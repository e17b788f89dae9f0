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
    I64,
    REALS,
    broadcast,
    declare,
    first_lanes,
    load,
    load_lanes,
    register_bytes,
    store,
    zeros,
)

GROUP = 4  # rows, or columns, that share a list: as many as the block of a product over a list has
WORD = 64  # columns whose marks share an integer
SAMPLE = 256  # rows that speak for the others
BYTE = 8  # marks looked at together
LOW = np.uint64(2**BYTE - 1)
MOST = 2**16  # rows or columns that an entry of a list can name
# PLACES[byte] names the bits of a byte that are set, lowest first; what follows them does not count.
PLACES = np.array([sorted(range(BYTE), key=lambda bit: not byte >> bit & 1) for byte in range(2**BYTE)], np.uint16)


class Marked(NamedTuple):
    """Rows with the places of their non-zeros; the compiled operations take it in the place of an array x.

    A list has room for BYTE entries more than it can have: they are written eight at a time.
    """

    x: np.ndarray  # (N, I)
    bits: np.ndarray  # (N, words) uint64: a mark a column that is not zero
    columns: np.ndarray  # (N/GROUP, I + BYTE) uint16: of each group of rows, the columns to visit
    column_counts: np.ndarray  # (N/GROUP,) int64
    rows: np.ndarray  # (I/GROUP or more, N + BYTE) uint16: of each group of columns, the rows to visit
    row_counts: np.ndarray  # (I/GROUP or more,) int64


def room_for_marks(x):
    """A `Marked` for the buffer x (N, I), its lists not yet made."""
    N, I = x.shape
    words = -(-I // WORD)
    groups = words * WORD // GROUP
    return Marked(
        x, np.zeros((N, words), np.uint64),
        np.zeros((N // GROUP, I + BYTE), np.uint16), np.zeros(N // GROUP, np.int64),
        np.zeros((groups, N + BYTE), np.uint16), np.zeros(groups, np.int64),
    )  # fmt: skip


def worth_marking(X):
    """Whether X (M, I) has so many zeros, and rows, that finding them and visiting the others only is faster."""
    if len(X) < SAMPLE or not WORD <= X.shape[1] < MOST:
        return False
    groups = X[:SAMPLE].reshape(-1, GROUP, X.shape[1])
    return bool((groups != 0).any(axis=1).mean() < 0.6)


@intrinsic
def nonzero_bits(typingctx, like, address, count):
    """A bit for each of the first `count` numbers at an address, at most a register of them, that is not zero."""
    name = str(like.dtype)
    size, number = (1, I8) if name == "uint8" else (BYTES[name], REALS[name])
    lanes = register_bytes() // size

    def generate(context, builder, signature, arguments):
        _, address, count = arguments
        vector = ir.VectorType(number, lanes)
        numbers = load_lanes(builder, address, vector, size, first_lanes(builder, count, lanes))
        if number == I8:
            marks = builder.icmp_unsigned("!=", numbers, zeros(vector))
        else:
            marks = builder.fcmp_unordered("!=", numbers, zeros(vector))  # a NaN is not zero
        marks = builder.bitcast(marks, ir.IntType(lanes))
        return marks if lanes == WORD else builder.zext(marks, I64)

    return types.uint64(like, types.int64, types.int64), generate


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
def register_lanes(typingctx, like):
    """Numbers of the array's type in a register."""
    lanes = register_bytes() // (like.dtype.bitwidth // 8)

    def generate(context, builder, signature, arguments):
        return I64(lanes)

    return types.int64(like), generate


@compiled
def mark(X, order, first, last, bits):
    """Set the bits (last - first, words) of the columns in which rows order[first:last] of X (M, I) are not zero."""
    I = X.shape[1]
    size = X.itemsize
    step = register_lanes(X)
    for n in range(last - first):
        row = first + n if order is None else order[first + n]
        start = X.ctypes.data + row * X.strides[0]
        for word in range(bits.shape[1]):
            left = word * WORD
            marks = np.uint64(0)
            for i in range(left, min(left + WORD, I), step):
                marks |= nonzero_bits(X, start + i * size, I - i) << np.uint64(i - left)
            bits[n, word] = marks


@compiled
def append(out, count, byte, first):
    """Add the places of a byte's marks, counted from `first`, to the list at address `out`; returns its new length."""
    add_places(PLACES.ctypes.data + 2 * BYTE * np.int64(byte), first, out + 2 * count)
    return count + count_bits(byte)


@compiled
def list_columns(marked, n):
    """Of each whole group of the first n rows, the columns in which any of them is not zero."""
    for group in range(n // GROUP):
        count = 0
        first = group * GROUP
        out = marked.columns.ctypes.data + group * marked.columns.strides[0]
        for word in range(marked.bits.shape[1]):
            marks = np.uint64(0)
            for row in range(first, first + GROUP):
                marks |= marked.bits[row, word]
            for byte in range(WORD // BYTE):
                count = append(out, count, (marks >> np.uint64(BYTE * byte)) & LOW, word * WORD + byte * BYTE)
        marked.column_counts[group] = count


@compiled
def marks_of_groups(marks):
    """The marks of a word, one for each GROUP of them: set if any of the group is -> uint64 below 2**16."""
    marks |= marks >> np.uint64(1)
    marks = (marks | (marks >> np.uint64(2))) & np.uint64(0x1111111111111111)
    marks = (marks | (marks >> np.uint64(3))) & np.uint64(0x0303030303030303)
    marks = (marks | (marks >> np.uint64(6))) & np.uint64(0x000F000F000F000F)
    marks = (marks | (marks >> np.uint64(12))) & np.uint64(0x000000FF000000FF)
    return (marks | (marks >> np.uint64(24))) & np.uint64(0xFFFF)


@compiled
def transpose_bits(block):
    """The 8 x 8 bits of a uint64, a byte a row, transposed. Warren, "Hacker's Delight", 2013, section 7-3."""
    swap = (block ^ (block >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
    block ^= swap ^ (swap << np.uint64(7))
    swap = (block ^ (block >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
    block ^= swap ^ (swap << np.uint64(14))
    swap = (block ^ (block >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
    return block ^ swap ^ (swap << np.uint64(28))


@compiled
def list_rows(marked, n, first, last):
    """Of the column groups of words `first` to `last`, the rows among the first n in which any column is not zero."""
    per_word = WORD // GROUP
    rows, counts = marked.rows, marked.row_counts
    counts[first * per_word : last * per_word] = 0
    for top in range(0, n, BYTE):
        for word in range(first, last):
            left = right = np.uint64(0)  # of eight rows, the marks of eight groups, and of eight more
            for row in range(min(BYTE, n - top)):
                marks = marks_of_groups(marked.bits[top + row, word])
                left |= (marks & LOW) << np.uint64(BYTE * row)
                right |= (marks >> np.uint64(BYTE)) << np.uint64(BYTE * row)
            left, right = transpose_bits(left), transpose_bits(right)
            for i in range(BYTE):
                for block, group in ((left, word * per_word + i), (right, word * per_word + BYTE + i)):
                    byte = (block >> np.uint64(BYTE * i)) & LOW
                    out = rows.ctypes.data + group * rows.strides[0]
                    counts[group] = append(out, counts[group], byte, top)
