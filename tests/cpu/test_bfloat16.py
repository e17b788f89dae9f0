"""precision="bfloat16": products of rounded operands against float64, steps against the oracle, and who refuses it."""

import ctypes
from functools import cache, partial
from itertools import product as pairs

import numpy as np
import oracle
import pytest
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp.kernels.cpu.microkernel import MASK, PLAIN, RELU
from fastmlp.kernels.cpu.packing import PAIRED
from fastmlp.kernels.cpu.product import ARGUMENTS, DENSE, DEPTH, publish, symbol
from fastmlp.kernels.cpu.vector import BFLOAT16, has_bfloat16
from llvmlite.binding import address_of_symbol
from test_product import Fence, expected, framed, needs_mprotect, turned, with_frame

from fastmlp import OptionError, backends, train
from fastmlp.backends import numba as numba_backend
from fastmlp.backends import numba_learner, numba_plan, numba_ways
from fastmlp.backends.base import Rows
from fastmlp.backends.numba_ways import LARGE
from fastmlp.network import Network, initialise, layer_views
from fastmlp.optimizers import Settings, find

needs_bfloat16 = pytest.mark.skipif(not has_bfloat16(), reason="this CPU has no AVX-512 BF16")
FINISHES = (PLAIN, RELU, MASK)


def rounded(x):
    """float32 numbers at the nearest bfloat16, of two equally near the even one: their upper 16 bits."""
    bits = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
    return bits.astype(np.uint32).view(np.float32)


@cache
def multiply():
    publish(BFLOAT16)
    return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * ARGUMENTS)(address_of_symbol(symbol(BFLOAT16, DENSE)))


def call(finish, A, B, start, C, gate):
    """C = finish(start + A B); start is a row or None."""
    begin = 0 if start is None else start.ctypes.data
    (M, K), N = A.shape, B.shape[1]
    multiply()(
        A.ctypes.data, *A.strides, B.ctypes.data, *B.strides, begin, 0, C.ctypes.data, C.strides[0],
        gate.ctypes.data, gate.strides[0], M, N, K, finish,
    )  # fmt: skip


def operands(rng, M, N, K, columns):
    """A (M, K), whose rows or columns are contiguous, B (K, N), start (N,) and gate (M, N)."""
    A = rng.standard_normal((K, M) if columns else (M, K)).astype(np.float32) / max(K, 1)
    B, gate = (rng.standard_normal(shape).astype(np.float32) for shape in ((K, N), (M, N)))
    return A.T if columns else A, B, gate[0].copy(), gate


def rounded_before(A, columns):
    """The same A as bfloat16, in rows with room beside them, NaN but for what follows an odd K along k."""
    stored = A.T if columns else A
    room = np.full((stored.shape[0], -(-stored.shape[1] // PAIRED) * PAIRED + PAIRED), 0x7FC0, np.uint16)
    room[:, : stored.shape[1]] = rounded(stored).view(np.uint32) >> 16
    if not columns:
        room[:, stored.shape[1]] = 0
    inside = room[:, : stored.shape[1]]
    return inside.T if columns else inside


SIZES = [*pairs((1, 2, 13, 15, 31), (1, 16, 17, 33), (1, 2, 7, 32, 45)), (300, 70, DEPTH), (17, 65, 2 * DEPTH + 5)]


@needs_bfloat16
@pytest.mark.parametrize("columns", [False, True])
def test_products_of_rounded_operands(columns):
    rng = np.random.default_rng(0)
    for case, (M, N, K) in enumerate(SIZES):
        A, B, start, gate = operands(rng, M, N, K, columns)
        start = start if case % 2 else None
        for finish, lie, left in pairs(FINISHES, (with_frame, turned), (A, rounded_before(A, columns))):
            C, frame = framed((M, N), np.float32)
            call(finish, left, lie(B), start, C, gate)
            want = expected(finish, rounded(A), rounded(B), start, gate if finish == MASK else None)
            assert_close(C, want, np.float32)
            assert np.isnan(frame).sum() == frame.size - C.size
    assert np.abs(C - expected(finish, A, B, start, gate)).max() > 1e-4  # not rounded it would be far off


@needs_bfloat16
def test_nan_and_infinity_pass_through():
    for value, columns in pairs((np.nan, np.inf, -np.inf), (False, True)):
        for inside in ("A", "B"):
            A, B, start, gate = operands(np.random.default_rng(0), 5, 20, 9, columns)
            A, B = np.abs(A) + 1, np.abs(B) + 1
            (A if inside == "A" else B)[3, 4] = value
            C = np.empty((5, 20), np.float32)
            call(PLAIN, A, turned(B) if columns else B, start, C, gate)
            hit = np.zeros(C.shape, bool)
            hit[(3, slice(None)) if inside == "A" else (slice(None), 4)] = True
            np.testing.assert_array_equal(C[hit], np.full(hit.sum(), value, np.float32))
            assert np.isfinite(C[~hit]).all()


FENCED = "import test_bfloat16; test_bfloat16.check_fences(); print('done')"


def check_fences():
    """Products whose operands lie right beside pages that may not be touched."""
    rng, fences = np.random.default_rng(0), [Fence() for _ in range(4)]
    for (M, N, K), at_end, columns in pairs(SIZES[:-2], (False, True), (False, True)):
        A, B, start, gate = operands(rng, M, N, K, columns)
        want = expected(PLAIN, rounded(A), rounded(B), start)
        A, B = (
            fence.put(array.T, at_end).T if columns else fence.put(array, at_end)
            for fence, array in zip(fences, (A, B), strict=False)
        )
        start, C = (
            fence.put(array, at_end)
            for fence, array in zip(fences[2:], (start, np.zeros((M, N), np.float32)), strict=True)
        )
        call(PLAIN, A, B, start, C, gate)
        assert_close(C, want, np.float32)


@needs_bfloat16
@needs_mprotect
def test_nothing_beyond_the_operands_is_touched(program):
    assert program(FENCED).strip() == "done"


def gradients(x, y, W, b):
    """The oracle's, of a net whose products round their operands."""
    last, a = len(W) - 1, [x]
    for l in range(last + 1):
        z = rounded(a[-1]).astype(np.float64) @ rounded(W[l]) + b[l]
        a.append(z if l == last else np.maximum(z, 0))
    dz = (oracle.softmax_fast(a[-1]) - np.eye(a[-1].shape[1])[y]) / len(y)
    found = []
    for l in range(last, -1, -1):
        found.append((rounded(a[l]).astype(np.float64).T @ rounded(dz), dz.sum(axis=0)))
        dz = (rounded(dz).astype(np.float64) @ rounded(W[l]).T) * (a[l] > 0) if l else dz
    return oracle.losses(a[-1], y).mean(), found[::-1]


@needs_bfloat16
@pytest.mark.parametrize(
    ("sizes", "batch"),
    [((13, 4), LARGE + 7), ((19, 23, 5), 61), ((19, 23, 5), LARGE + 7), ((40, 33, 17, 3), 61)],
    ids=str,
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_step_follows_the_oracle_with_rounded_operands(sizes, batch, threads, monkeypatch):
    monkeypatch.setattr(numba_backend, "team_threads", lambda asked: asked)
    at_any_size(monkeypatch)
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((batch, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], batch)
    start = initialise(sizes, rng, np.dtype(np.float32))
    plan = backends.load("numba").plan(Network(sizes), start, threads, BFLOAT16)
    rows = Rows(X, y.astype(np.int32))
    learner = plan.learner(find("sgd"), Settings())
    W, b = layer_views(start, sizes)
    loss, want = gradients(X, y, W, b)
    assert_close(plan.logits(X[:9]), oracle_logits(X[:9], W, b), np.float32, "rounded step")
    assert_close(plan.evaluate(rows)[0], loss, np.float32, "rounded step")
    totals = learner.epoch(rows, batch, np.ones(1))
    assert_close(totals.loss, loss, np.float32, "rounded step")
    assert plan.parameters.dtype == np.float32
    for (dW, db), w, v, w0, v0 in zip(want, *layer_views(plan.parameters, sizes), W, b, strict=True):
        assert_close(w0 - w, dW, np.float32, "rounded step")
        assert_close(v0 - v, db, np.float32, "rounded step")


def at_any_size(monkeypatch):
    """Small batches take phases, on all threads asked for."""
    for module, name in ((numba_ways, "SMALL"), (numba_ways, "FEW"), (numba_learner, "ALONE"), (numba_plan, "START")):
        monkeypatch.setattr(module, name, 0)


def oracle_logits(x, W, b):
    """z of a net whose products round their operands."""
    for l in range(len(W)):
        x = rounded(np.maximum(x, 0) if l else x).astype(np.float64) @ rounded(W[l]) + b[l]
    return x


@needs_bfloat16
@pytest.mark.parametrize("batch", [61, LARGE + 7])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_rounded_alike_however_they_lie(batch, threads, monkeypatch):
    monkeypatch.setattr(numba_backend, "team_threads", lambda asked: asked)
    at_any_size(monkeypatch)
    sizes, rng = (45, 23, 5), np.random.default_rng(2)
    pixels = rng.integers(0, 256, (batch + 20, 45), np.uint8)
    floats = pixels * np.float32(1 / 255)  # as `fused.gather` scales them
    y, start = rng.integers(0, 5, batch + 20).astype(np.int32), initialise(sizes, rng, np.dtype(np.float32))
    order = rng.permutation(batch + 20)[:batch]
    for index in (None, order):
        found = []
        for X in (floats, pixels, np.asfortranarray(floats), np.repeat(floats, 2, axis=0)[::2]):
            plan = backends.load("numba").plan(Network(sizes), start, threads, BFLOAT16)
            learner = plan.learner(find("momentum"), Settings())
            rows = Rows(X[: batch + 20], y, index)
            learner.epoch(rows, batch, np.full(-(-len(rows) // batch), 0.1))
            found.append((plan.parameters.tobytes(), plan.logits(X).tobytes()))
        assert found == found[:1] * len(found)


@needs_bfloat16
@pytest.mark.parametrize("batch", [16, "full"])
def test_it_learns_saves_and_predicts(blobs, tmp_path, batch):
    fit = partial(train, *blobs, hidden=(8,), epochs=40, batch_size=batch, learning_rate=0.3, progress=False)
    rough, fine = (fit(backend="numba", precision=precision) for precision in (BFLOAT16, "float32"))
    assert rough.report.precision == BFLOAT16
    assert rough.parameters.dtype == np.float32
    assert rough.history.train_loss != fine.history.train_loss
    np.testing.assert_allclose(rough.history.train_loss, fine.history.train_loss, rtol=0.05, atol=0.01)
    assert fit(backend="numba", precision=BFLOAT16).parameters.tobytes() == rough.parameters.tobytes()
    rough.save(tmp_path / "rough.safetensors")
    from fastmlp import load

    assert load(tmp_path / "rough.safetensors", backend="numba").predict_proba(blobs[0]).tobytes() == (
        rough.predict_proba(blobs[0]).tobytes()
    )
    plain = load(tmp_path / "rough.safetensors", backend="numpy").predict_proba(blobs[0])  # computes in float32
    np.testing.assert_allclose(plain, rough.predict_proba(blobs[0]), atol=0.05)


def test_numpy_refuses_it(blobs):
    with pytest.raises(OptionError, match="the numpy backend cannot compute in bfloat16: it computes in float32 or"):
        train(*blobs, backend="numpy", precision=BFLOAT16)


def test_a_cpu_without_it_is_the_reason(blobs, monkeypatch):
    monkeypatch.setattr(numba_backend, "has_bfloat16", lambda: False)
    narrow = numba_backend.NumbaBackend()
    monkeypatch.setattr(backends, "load", lambda name: narrow)
    with pytest.raises(OptionError, match="numba backend cannot compute in bfloat16: this CPU has no AVX-512 BF16"):
        train(*blobs, backend="numba", precision=BFLOAT16)
