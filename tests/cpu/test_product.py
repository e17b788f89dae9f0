"""Matrix products of any size and any strides against float64 NumPy; nothing outside the operands is touched."""

import ctypes
import mmap
import platform
import sys
from functools import cache
from itertools import product as pairs

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp.kernels.cpu.microkernel import MASK, PLAIN, RELU
from fastmlp.kernels.cpu.product import ARGUMENTS, DENSE, DEPTH, FAR, PACKED_ROWS, WAY, publish, symbol
from fastmlp.kernels.cpu.vector import register_bytes
from llvmlite.binding import address_of_symbol

FINISHES = (PLAIN, RELU, MASK)
STARTS = ("bias", "accumulate", "matrix", "zeros")
LAYOUTS = ("C", "Fortran", "every second", "reversed", "repeated row", "byte 1", "byte 2", "element 1")


@cache
def multiply(real):
    """The C function."""
    publish(real)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * ARGUMENTS)(address_of_symbol(symbol(real, DENSE)))


def call(finish, A, B, start, C, gate=None):
    """C = finish(start + A B). start is a row, a matrix or None.

    A may have any strides, B may have rows or columns whose numbers are neighbours, the others any row stride.
    """
    begin = (0, 0) if start is None else (start.ctypes.data, start.strides[0] if start.ndim == 2 else 0)
    shut = (0, 0) if gate is None else (gate.ctypes.data, gate.strides[0])
    (M, K), N = A.shape, B.shape[1]
    multiply(C.dtype.name)(
        A.ctypes.data,
        *A.strides,
        B.ctypes.data,
        *B.strides,
        *begin,
        C.ctypes.data,
        C.strides[0],
        *shut,
        M,
        N,
        K,
        finish,
    )


def expected(finish, A, B, start, gate=None):
    """The same in float64."""
    with np.errstate(invalid="ignore"):
        total = A.astype(np.float64) @ B.astype(np.float64)
        total = total if start is None else start.astype(np.float64) + total
        return {
            PLAIN: total,
            RELU: np.where(total < 0, 0, total),
            MASK: total if gate is None else np.where(gate > 0, total, 0),
        }[finish]


def framed(shape, dtype, left=3, right=5):
    """A matrix of NaN inside a larger one, and the larger one: whatever is written outside shows."""
    frame = np.full((shape[0] + 2, shape[1] + left + right), np.nan, dtype)
    return frame[1:-1, left : left + shape[1]], frame


def with_frame(values):
    """`values` inside a frame of NaN: whatever is read outside shows."""
    inside, _ = framed(values.shape, values.dtype)
    inside[:] = values
    return inside


def turned(B):
    """The same numbers, a column's being neighbours, inside a frame of NaN."""
    return with_frame(B.T).T


def operands(rng, M, N, K, real, kind):
    """A, B, gate, start of numbers of order 1 whose product is of order 1 at any depth."""
    A = (rng.standard_normal((M, K)) / max(K, 1)).astype(real)
    B, gate, matrix = (rng.standard_normal(shape).astype(real) for shape in ((K, N), (M, N), (M, N)))
    gate[rng.random((M, N)) < 0.2] = 0
    start = {"bias": matrix[0], "accumulate": matrix, "matrix": matrix, "zeros": None}[kind]
    return A, B, gate, start


def check(finish, A, B, start, kind, gate):
    """The product is right, C's surroundings stay, the operands stay."""
    C, frame = framed((A.shape[0], B.shape[1]), B.dtype)
    want = expected(finish, A, B, start, gate)
    if kind == "accumulate":
        C[:] = start
        start = C
    before = A.copy(), B.copy(), gate.copy(), None if start is None or start is C else start.copy()
    call(finish, A, B, start, C, gate if finish == MASK else None)
    assert_close(C, want, C.dtype)
    written = ~np.isnan(frame)
    assert written.sum() == np.count_nonzero(~np.isnan(C))
    for array, kept in zip((A, B, gate, start), before, strict=True):
        if kept is not None:
            np.testing.assert_array_equal(array, kept)


def check_every_size(real, rows=range(1, 31), columns=range(1, 71)):
    """Each M and N with each finish; K from 0 to 20, the start, how B lies and a share of zeros in A change."""
    rng = np.random.default_rng(0)
    for case, (M, N, finish) in enumerate(pairs(rows, columns, FINISHES)):
        kind, K = STARTS[case % 4], (5 * M + 3 * N + case) % 21
        A, B, gate, start = operands(rng, M, N, K, real, kind)
        if case % 5 == 0:
            A[rng.random(A.shape) < 0.8] = 0
        check(finish, A, turned(B) if case % 7 < 3 else B, start, kind, gate)


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_every_small_size(real):
    check_every_size(real)


def laid_out(A, layout):
    """The numbers of A in another layout."""
    M, K = A.shape
    size = A.itemsize
    if layout == "Fortran":
        return np.asfortranarray(A)
    if layout == "every second":
        wide = np.full((2 * M, 2 * K), np.nan, A.dtype)
        wide[::2, ::2] = A
        return wide[::2, ::2]
    if layout == "reversed":
        return A[::-1, ::-1].copy()[::-1, ::-1]
    if layout == "repeated row":
        return np.broadcast_to(A[0], A.shape)
    shift = {"C": 0, "byte 1": 1, "byte 2": 2, "element 1": size}[layout]
    room = np.zeros(A.nbytes + shift, np.uint8)
    view = room[shift:].view(A.dtype) if shift % size == 0 else np.ndarray(M * K, A.dtype, room, shift)
    view = view[: M * K].reshape(M, K)
    view[:] = A
    return view


@settings(max_examples=200)
@given(
    st.integers(1, 30), st.integers(1, 70), st.integers(0, 20) | st.sampled_from([DEPTH - 1, DEPTH, DEPTH + 1, 1100]),
    st.sampled_from(["float32", "float64"]), st.sampled_from(FINISHES), st.sampled_from(STARTS),
    st.sampled_from(LAYOUTS), st.sampled_from([with_frame, turned]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_size_in_any_layout(M, N, K, real, finish, kind, layout, lay_B, seed):
    A, B, gate, start = operands(np.random.default_rng(seed), M, N, K, real, kind)
    A = laid_out(A, layout)
    start = with_frame(start) if kind == "matrix" else start
    check(finish, A, lay_B(B), start, kind, with_frame(gate))


def rows_apart(values, size):
    """The same numbers, in rows `size` bytes apart, NaN between them."""
    wide = np.full((values.shape[0], size // values.itemsize), np.nan, values.dtype)
    wide[:, : values.shape[1]] = values
    return wide[:, : values.shape[1]]


def check_far_apart(real):
    """Operands that are copied: rows of A and of B that collide in the caches, and more rows than fit one copy."""
    rng = np.random.default_rng(0)
    for M, N, K in ((PACKED_ROWS, 300, 33), (PACKED_ROWS - 1, 40, 70), (237, 19, DEPTH), (130, 530, 9), (9, 3, 600)):
        for far_A, far_B, finish in pairs((0, WAY, 2 * WAY), (0, FAR, 2 * WAY), FINISHES):
            kind = STARTS[(M + N + far_B // FAR) % 4]
            A, B, gate, start = operands(rng, M, N, K, real, kind)
            A = rows_apart(A, far_A) if far_A and far_A >= K * A.itemsize else A
            B = rows_apart(B, far_B) if far_B and far_B >= N * B.itemsize else with_frame(B)
            check(finish, A, B, start, kind, gate)
            check(finish, A, turned(B), start, kind, gate)


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_rows_that_collide_in_a_cache(real):
    check_far_apart(real)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("finish", FINISHES)
def test_nothing_to_do_writes_nothing(real, finish):
    for M, N in ((0, 5), (5, 0), (0, 0)):
        C, frame = framed((M, N), real)
        gate = np.ones((M, N), real)
        call(finish, np.ones((M, 3), real), np.ones((3, N), real), np.ones((M, N), real), C, gate)
        assert np.isnan(frame).all()


def check_specials(real):
    """NaN and infinity in A, in B and in the start reach C; ReLU keeps NaN; the gate shuts at 0, -0 and NaN."""
    values = np.array([np.nan, np.inf, -np.inf, 1, -1], real)
    one = np.ones((1, 1), real)
    for finish, N in pairs(FINISHES, (1, 7, 40)):
        for value in values:
            from_A, from_B, from_start = (np.full((3, N), -5, real) for _ in range(3))
            gate = np.ones((3, N), real)
            column, row = np.full((3, 1), value), np.full((1, N), value)
            call(finish, column, np.ones((1, N), real), None, from_A, gate)
            call(finish, np.ones((3, 1), real), row, None, from_B, gate)
            call(finish, np.zeros((3, 0), real), np.ones((0, N), real), row[0], from_start, gate)
            want = 0 if finish == RELU and value < 0 else value
            for got in (from_A, from_B, from_start):
                np.testing.assert_array_equal(got, np.full((3, N), want))
        one_place = np.zeros((5, N), real)
        one_place[2, N // 2] = np.nan
        C = np.empty((5, N), real)
        call(finish, np.eye(5, dtype=real), np.ones((5, N), real), one_place, C, np.ones((5, N), real))
        np.testing.assert_array_equal(np.isnan(C), np.isnan(one_place))  # and no other
        B = np.full((5, N), 2, real)
        B[2, N // 2] = np.nan
        for lie in (with_frame, turned):
            call(finish, np.eye(5, dtype=real) + 1, lie(B), None, C, np.ones((5, N), real))
            np.testing.assert_array_equal(np.isnan(C), np.isnan(B).any(axis=0) & np.ones((5, 1), bool))
    for gate, want in ((0.0, 0), (-0.0, 0), (np.nan, 0), (-np.inf, 0), (-1, 0), (np.inf, 3), (1e-30, 3)):
        C = np.empty((1, 1), real)
        call(MASK, one, 3 * one, None, C, np.full((1, 1), gate, real))
        assert C[0, 0] == want
    C = np.empty((1, 1), real)
    call(MASK, one, np.full((1, 1), np.nan, real), None, C, 0 * one)
    assert C[0, 0] == 0  # a gate that is shut is 0, not 0 * NaN


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_nan_and_infinity_pass_through(real):
    check_specials(real)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("N", [1, 8, 16, 33])
def test_without_depth_the_start_is_kept_to_the_bit(real, N):
    start = np.full((4, N), -0.0, real)
    start[1], start[2] = np.finfo(real).smallest_subnormal, np.finfo(real).max
    C = np.empty_like(start)
    call(PLAIN, np.ones((4, 0), real), np.ones((0, N), real), start, C)
    assert C.tobytes() == start.tobytes()
    call(RELU, np.ones((4, 0), real), np.ones((0, N), real), start, C)
    np.testing.assert_array_equal(C, start)  # a zero of either sign


# Reads and writes beyond the operands, which pages that may not be touched turn into a fault.

PAGE = mmap.PAGESIZE


class Fence:
    """Memory between two pages that may not be touched."""

    def __init__(self, size=1 << 16):
        self.size = -(-size // PAGE) * PAGE
        self.map = mmap.mmap(-1, self.size + 2 * PAGE)
        self.bytes = np.frombuffer(self.map, np.uint8)
        address, libc = self.bytes.ctypes.data, ctypes.CDLL(None, use_errno=True)
        for page in (address, address + PAGE + self.size):
            if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0):
                raise OSError(ctypes.get_errno(), "mprotect")

    def put(self, values, at_end):
        """The values, C-ordered, right at the end of the memory or right at its beginning."""
        room = self.bytes[PAGE : PAGE + self.size]
        room = room[self.size - values.nbytes :] if at_end else room[: values.nbytes]
        view = room.view(values.dtype).reshape(values.shape)
        view[:] = values
        return view


def check_fences(real):
    """Products whose operands lie right beside such pages."""
    rng, fences = np.random.default_rng(0), [Fence() for _ in range(5)]
    sizes = pairs((1, 2, 3, 4, 7, 8, 13, 14, 15, 29), range(1, 71), (False, True))
    for case, (M, N, at_end) in enumerate(sizes):
        K, kind = (1, 2, 9, 0)[case % 4], STARTS[case // 4 % 4]
        for finish in FINISHES:
            A, B, gate, start = operands(rng, M, N, K, real, kind)
            want = expected(finish, A, B, start, gate)
            turn = (case + finish) % 2  # B, on its way to the fence and back
            B = B.T if turn else B
            A, B, gate = (fence.put(array, at_end) for fence, array in zip(fences, (A, B, gate), strict=False))
            B = B.T if turn else B
            C = fences[3].put(np.zeros((M, N), real), at_end)
            if kind == "accumulate":
                C[:] = start
            start = C if kind == "accumulate" else None if start is None else fences[4].put(start, at_end)
            call(finish, A, B, start, C, gate if finish == MASK else None)
            assert_close(C, want, real)


needs_mprotect = pytest.mark.skipif(sys.platform == "win32", reason="needs mprotect")


@needs_mprotect
def test_a_fence_is_a_fence(start):
    process = start("import test_product; f = test_product.Fence(); print('made', flush=True); f.bytes[-1]")
    out, _ = process.communicate(timeout=60)
    assert out.strip() == "made"
    assert process.returncode < 0  # killed by a signal


@needs_mprotect
def test_nothing_beyond_the_operands_is_touched(program):
    code = "import test_product; [test_product.check_fences(real) for real in ('float32', 'float64')]; print('done')"
    assert program(code).strip() == "done"


# Narrower vectors than this CPU's.

NARROW = """
import sys
import numpy as np
import test_kernels, test_numba_plan, test_product, test_sparse
from fastmlp.kernels.cpu.vector import has_fma, register_bytes
assert register_bytes() == int(sys.argv[1]), register_bytes()
assert has_fma() == (sys.argv[2] == "True")
test_product.check_every_size("float32", range(1, 16), range(1, 41))
test_product.check_specials("float32")
test_product.check_far_apart("float32")
if sys.platform != "win32":
    test_product.check_fences("float32")
test_kernels.check_ops("float32")
test_sparse.check_all_lists()
test_numba_plan.check_epochs("float32", (19, 23, 5), "momentum", 2, ("phases",), more=False)
print("done")
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the names are of x86 CPUs")
def test_narrower_vectors(start, finish, tmp_path):
    def narrowed(cpu, width, fma):
        return start(NARROW, width, fma, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=None, NUMBA_CACHE_DIR=tmp_path / cpu)

    processes = [narrowed("haswell", 32, True), narrowed("generic", 16, False)]
    assert [finish(process).strip() for process in processes] == ["done", "done"]
    assert all(list((tmp_path / cpu).rglob("*product*.nbi")) for cpu in ("haswell", "generic"))


def test_the_width_is_one_that_blocks_are_made_for():
    assert register_bytes() in (16, 32, 64)
