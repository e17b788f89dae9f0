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
from .vector import BYTES, I64, REALS, declare, first_lanes, load_lanes, register_bytes, zeros

GROUP = 4  # rows, or columns, that share a list: as many as the block of a product over a list has
WORD = 64  # columns whose marks share an integer
SAMPLE = 256  # rows that speak for the others
MOST = 2**16  # rows or columns that an entry of a list can name


class Marked(NamedTuple):
    """Rows with the places of their non-zeros; the compiled operations take it in the place of an array x."""

    x: np.ndarray  # (N, I)
    bits: np.ndarray  # (N, words) uint64: a mark a column that is not zero
    columns: np.ndarray  # (N/GROUP, I) uint16: of each group of rows, the columns to visit
    column_counts: np.ndarray  # (N/GROUP,) int64
    rows: np.ndarray  # (I/GROUP, N) uint16: of each group of columns, the rows to visit
    row_counts: np.ndarray  # (I/GROUP,) int64


def room_for_marks(x):
    """A `Marked` for the buffer x (N, I), its lists not yet made."""
    N, I = x.shape
    words = -(-I // WORD)
    return Marked(
        x, np.zeros((N, words), np.uint64),
        np.zeros((N // GROUP, I), np.uint16), np.zeros(N // GROUP, np.int64),
        np.zeros((I // GROUP, N), np.uint16), np.zeros(I // GROUP, np.int64),
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
    real = str(like.dtype)
    lanes = register_bytes() // BYTES[real]

    def generate(context, builder, signature, arguments):
        _, address, count = arguments
        vector = ir.VectorType(REALS[real], lanes)
        numbers = load_lanes(builder, address, vector, BYTES[real], first_lanes(builder, count, lanes))
        marks = builder.fcmp_unordered("!=", numbers, zeros(vector))  # a NaN is not zero
        return builder.zext(builder.bitcast(marks, ir.IntType(lanes)), I64)

    return types.uint64(like, types.int64, types.int64), generate


@intrinsic
def lowest_bit(typingctx, bits):
    """The place of the lowest bit that is set; bits must not be 0."""

    def generate(context, builder, signature, arguments):
        count = declare(builder.module, "llvm.cttz.i64", I64, [I64, ir.IntType(1)])
        return builder.call(count, [arguments[0], ir.IntType(1)(1)])

    return types.int64(types.uint64), generate


@intrinsic
def register_lanes(typingctx, like):
    """Numbers of the array's type in a register."""
    lanes = register_bytes() // BYTES[str(like.dtype)]

    def generate(context, builder, signature, arguments):
        return I64(lanes)

    return types.int64(like), generate


@compiled
def mark(x, bits):
    """Set the bits (N, words) of the columns in which x (N, I) is not zero."""
    N, I = x.shape
    size = x.itemsize
    step = register_lanes(x)
    for n in range(N):
        start = x.ctypes.data + n * x.strides[0]
        for word in range(bits.shape[1]):
            first = word * WORD
            marks = np.uint64(0)
            for i in range(first, min(first + WORD, I), step):
                marks |= nonzero_bits(x, start + i * size, I - i) << np.uint64(i - first)
            bits[n, word] = marks


@compiled
def list_columns(marked, n):
    """Of each whole group of the first n rows, the columns in which any of them is not zero."""
    one = np.uint64(1)
    for group in range(n // GROUP):
        count = 0
        first = group * GROUP
        for word in range(marked.bits.shape[1]):
            marks = np.uint64(0)
            for row in range(first, first + GROUP):
                marks |= marked.bits[row, word]
            while marks:
                marked.columns[group, count] = word * WORD + lowest_bit(marks)
                count += 1
                marks &= marks - one
        marked.column_counts[group] = count


@compiled
def list_rows(marked, n, first, last):
    """Of column groups `first` to `last`, the rows among the first n in which any of their columns is not zero."""
    one, lowest = np.uint64(1), np.uint64(0x1111111111111111)
    per_word = WORD // GROUP
    counts = marked.row_counts
    for group in range(first, last):
        counts[group] = 0
    if last <= first:
        return
    for row in range(n):
        for word in range(first // per_word, (last - 1) // per_word + 1):
            marks = marked.bits[row, word]
            marks |= marks >> one
            marks = (marks | (marks >> np.uint64(2))) & lowest  # one bit a group of columns
            while marks:
                group = word * per_word + lowest_bit(marks) // GROUP
                marks &= marks - one
                if first <= group < last:
                    marked.rows[group, counts[group]] = row
                    counts[group] += 1
