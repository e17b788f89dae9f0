"""The fused operations of the CPU kernels against float64: odd sizes, deep products, rows that lie apart."""

import numpy as np
import oracle
import pytest
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp.kernels.cpu import exponential, fused, ops
from fastmlp.kernels.cpu.cache import for_python
from fastmlp.kernels.cpu.product import DEPTH, publish
from numba import njit

call = for_python(
    fused.gather,
    fused.scale,
    fused.softmax,
    fused.softmax_cross_entropy,
    ops.add_parts,
    ops.affine,
    ops.backprop_relu,
    ops.column_sums,
    ops.gradient_rows,
    ops.product,
    ops.weight_gradient,
)

SIZES = [(1, 1, 1), (2, 3, 1), (5, 17, 10), (13, 31, 33), (29, 7, 65), (3, DEPTH - 1, 5), (16, DEPTH, 2)]
DEEP = [
    (15, DEPTH + 1, 18),
    (2, 2 * DEPTH, 7),
    (5, 1100, 3),
    (3, 40, 300),
    (9, 40, 300),
    (20, 200, 300),
    (3, 4 * DEPTH, 2),
]


def normal(rng, real, *shapes):
    """Arrays of numbers of order 1."""
    return [rng.standard_normal(shape).astype(real) for shape in shapes]


def apart(values):
    """The same numbers with rows that lie apart, NaN between them."""
    wide = np.full((values.shape[0], values.shape[1] + 3), np.nan, values.dtype)
    wide[:, 1:-2] = values
    return wide[:, 1:-2]


def check_affine(real, N, I, H, arrange=np.ascontiguousarray):
    publish(real)
    rng = np.random.default_rng(N + I)
    x, W, b = normal(rng, real, (N, I), (I, H), H)
    x /= I
    b -= 1  # most sums are negative on the way: a ReLU too early shows
    z = x.astype(np.float64) @ W + b
    x, W = arrange(x), arrange(W)
    for relu in (False, True):
        out = arrange(np.full((N, H), np.nan, real))
        call.affine(x, W, b, out, relu)
        assert_close(out, np.maximum(z, 0) if relu else z, real)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("arrange", [np.ascontiguousarray, apart])
def test_a_product_without_bias(real, arrange):
    publish(real)
    for N, I, H in SIZES:
        x, W = normal(np.random.default_rng(N + I), real, (N, I), (I, H))
        out = arrange(np.full((N, H), np.nan, real))
        call.product(arrange(x / I), arrange(W), out)
        assert_close(out, (x / I).astype(np.float64) @ W, real)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("relu", [False, True])
def test_parts_are_added_in_their_order(real, relu):
    N, H, more = 9, 21, 5
    parts, b = normal(np.random.default_rng(0), real, (3, N * H + more), H)
    parts[1, 4 * H + 2] = np.nan
    want = b + parts[0, : N * H].reshape(N, H)
    for part in parts[1:]:
        want += part[: N * H].reshape(N, H)
    frame = np.full((8, H), 7, real)
    call.add_parts(parts, b, 2, 8, relu, frame[1:7])
    np.testing.assert_array_equal(frame[1:7], (np.where(want < 0, 0, want) if relu else want)[2:8])
    assert np.isnan(frame).sum() == 1
    assert (frame[[0, 7]] == 7).all()


def check_backprop_relu(real, N, O, H, arrange=np.ascontiguousarray):
    publish(real)
    dz, W, a = normal(np.random.default_rng(N + O), real, (N, O), (H, O), (N, H))
    dz /= O
    out = arrange(np.full((N, H), np.nan, real))
    call.backprop_relu(arrange(dz), arrange(W), arrange(a), out)
    assert_close(out, (dz.astype(np.float64) @ W.T) * (a > 0), real)


def check_gradient_rows(real, H, N, O, arrange=np.ascontiguousarray):
    publish(real)
    a, dz, begin = normal(np.random.default_rng(N + O), real, (N, H), (N, O), (H, O))
    dz /= N
    for add in (False, True):
        for first, last in {(0, H), (H // 3, H - H // 4), (H - 1, H), (0, 0)}:
            dW = arrange(begin.copy())
            call.gradient_rows(arrange(a), arrange(dz), dW[: last - first], first, last, add)
            want = a.astype(np.float64).T[first:last] @ dz + (begin[: last - first] if add else 0)
            assert_close(dW[: last - first], want, real)
            np.testing.assert_array_equal(dW[last - first :], begin[last - first :])


def check_ops(real):
    """Every product operation at odd sizes."""
    for size in SIZES + DEEP:
        check_affine(real, *size)
        check_backprop_relu(real, *size)
        check_gradient_rows(real, *size)


# no weights; no smoothing, no gamma, no ceiling
PLAIN = {real: (np.zeros(0, real), np.zeros(3, real)) for real in ("float32", "float64")}


@pytest.mark.parametrize("real", ["float32", "float64"])
def test_products(real):
    check_ops(real)


@pytest.mark.parametrize("size", [(13, 31, 33), (5, 1100, 3)], ids=str)
def test_rows_may_lie_apart(size):
    check_affine("float32", *size, arrange=apart)
    check_backprop_relu("float32", *size, arrange=apart)
    check_gradient_rows("float32", *size, arrange=apart)


@pytest.mark.parametrize("N", [5, DEPTH + 40])
def test_weight_gradient_is_both(N):
    publish("float64")
    a, dz, dW, db = normal(np.random.default_rng(0), "float64", (N, 9), (N, 11), (9, 11), 11)
    dz /= N
    want_W, want_b = a.T @ dz, dz.sum(axis=0)
    before = dW.copy(), db.copy()
    call.weight_gradient(a, dz, dW, db, True)
    assert_close(dW, before[0] + want_W, "float64")
    assert_close(db, before[1] + want_b, "float64")
    call.weight_gradient(a, dz, dW, db, False)
    assert_close(dW, want_W, "float64")
    assert_close(db, want_b, "float64")


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize(("N", "O", "first", "last"), [(1, 1, 0, 1), (7, 33, 0, 33), (40, 19, 5, 17), (3, 9, 4, 4)])
def test_column_sums(N, O, first, last, add):
    dz, db = normal(np.random.default_rng(N), "float32", (N, O), O)
    want = db.astype(np.float64)
    want[first:last] = dz.astype(np.float64)[:, first:last].sum(axis=0) + (db[first:last] if add else 0)
    outside = np.delete(db, slice(first, last))
    call.column_sums(dz, first, last, db[first:last], add)
    assert_close(db, want, "float32")
    np.testing.assert_array_equal(np.delete(db, slice(first, last)), outside)


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize(("N", "O"), [(1, 1), (3, 2), (17, 10), (5, 33), (2, 1000)])
def test_softmax_cross_entropy(real, N, O):
    rng = np.random.default_rng(N)
    (z,) = normal(rng, real, (N, O))
    z *= 10
    z[0] += 1e3
    y = rng.integers(0, O, N).astype(np.int32)
    exact, dz, totals = z.astype(np.float64), np.full((N, O), np.nan, real), np.array([1.0, 2.0])
    call.softmax_cross_entropy(z, y, np.dtype(real).type(0.25), dz, totals, *PLAIN[str(z.dtype)])
    assert_close(dz, (oracle.softmax(exact) - np.eye(O)[y]) * 0.25, real)
    # The shift by the largest is exact; exp(z - top) errs by the rounding of its argument: compare losses loosely.
    assert_close(totals[0] - 1, oracle.losses(exact, y).sum(), real, "run")
    assert totals[1] == 2 + np.sum(exact.argmax(axis=1) == y)


def test_exp_is_good_over_its_whole_range():
    """One row: softmax of 0 and of -t is 1/(1+e^-t) and 1/(1+e^t), also where e^-t vanishes."""
    for real, end in (("float32", 120), ("float64", 800)):
        t = np.linspace(0, end, 5001)
        z = np.stack([np.zeros_like(t), -t], axis=1).astype(real)
        t = -z[:, 1].astype(np.float64)
        dz, totals = np.empty_like(z), np.zeros(2)
        call.softmax_cross_entropy(
            z, np.zeros(len(z), np.int32), np.dtype(real).type(1), dz, totals, *PLAIN[str(z.dtype)]
        )
        assert np.isfinite(dz).all()
        small = np.exp(-t) / (1 + np.exp(-t))
        tiny = np.finfo(real).tiny
        np.testing.assert_allclose(dz[:, 1], small, rtol=1e-5 if real == "float32" else 1e-12, atol=4 * tiny)
        assert totals[1] == len(z)


@pytest.mark.parametrize(("real", "near", "far"), [("float32", 4e-7, 87), ("float64", 1e-15, 708)])
def test_exp_and_tanh_are_the_c_librarys_but_for_rounding(real, near, far):
    @njit
    def each(x, e, t):
        for i in range(len(x)):
            e[i], t[i] = exponential.exp(x[i]), exponential.tanh(x[i])

    tiny = 10.0 ** np.arange(-30, 0)
    x = np.concatenate([np.linspace(-far, far, 5001), np.linspace(-2, 2, 5001), tiny, -tiny]).astype(real)
    e, t = np.empty_like(x), np.empty_like(x)
    each(x, e, t)
    np.testing.assert_allclose(e, np.exp(x.astype(np.float64)), near)
    np.testing.assert_allclose(t, np.tanh(x.astype(np.float64)), near)
    ends = np.array([-np.inf, np.inf, np.nan, 0], real)  # below the smallest normal number exp stays there
    each(ends, e, t)
    np.testing.assert_allclose(e[:4], [0, np.inf, np.nan, 1], atol=4 * np.finfo(real).tiny)
    np.testing.assert_array_equal(t[:4], [-1, 1, np.nan, 0])


@pytest.mark.parametrize(("real", "near"), [("float32", 2e-7), ("float64", 4e-16)])
def test_log_is_the_c_librarys_but_for_rounding(real, near):
    @njit
    def each(x, out):
        for i in range(len(x)):
            out[i] = exponential.log(x[i])

    far = np.log(float(np.finfo(real).max))
    x = np.concatenate([np.exp(np.linspace(-far, far, 5001)), np.linspace(0.5, 2, 5001), 1 + 10.0 ** np.arange(-16, 0)])
    x = np.append(x[x <= np.finfo(real).max], [1, np.finfo(real).tiny, np.finfo(real).max]).astype(real)
    x = x[x >= np.finfo(real).tiny]
    out = np.empty_like(x)
    each(x, out)
    np.testing.assert_allclose(out.astype(np.longdouble), np.log(x.astype(np.longdouble)), near)
    ends, out = np.array([np.inf, np.nan, 0], real), np.empty(3, real)
    each(ends, out)
    np.testing.assert_array_equal(out[:2], [np.inf, np.nan])
    assert out[2] == pytest.approx(np.log(np.finfo(real).tiny))


@pytest.mark.parametrize("real", ["float32", "float64"])
@pytest.mark.parametrize("O", [1, 2, 3, 10, 16, 17, 37])
def test_softmax_in_place(real, O):
    z = 5 * np.random.default_rng(O).standard_normal((11, O)).astype(real)
    z[3] *= 1e4
    want = oracle.softmax(z.astype(np.float64))
    frame = np.full((13, O), np.nan, real)
    p = frame[1:12]
    p[:] = z
    call.softmax(p)
    assert_close(p, want, real)
    assert np.isnan(frame).sum() == 2 * O
    p[:] = z
    p[4, 0], p[6], p[8, 0] = np.nan, -np.inf, np.inf
    call.softmax(p)
    assert np.isnan(p[[4, 6, 8]]).all()
    assert_close(np.delete(p, [4, 6, 8], axis=0), np.delete(want, [4, 6, 8], axis=0), real)
    call.softmax(p[:0])


def test_of_equal_logits_the_first_counts():
    z = np.zeros((4, 37), np.float32)
    z[2, 20] = z[2, 30] = 1
    totals = np.zeros(2)
    call.softmax_cross_entropy(
        z, np.array([0, 1, 20, 36], np.int32), np.float32(1), np.empty_like(z), totals, *PLAIN[str(z.dtype)]
    )
    assert totals[1] == 2


@pytest.mark.parametrize("N", [1, 6, 33])
@pytest.mark.parametrize("I", [1, 15, 65])
def test_gather_and_scale(N, I):
    rng = np.random.default_rng(N)
    X = rng.integers(0, 256, (N + 3, I), dtype=np.uint8)
    index = rng.integers(0, N + 3, N)
    pixel = np.float32(1 / 255)
    out = np.full((N, I), np.nan, np.float32)
    for rows in (X, np.asfortranarray(X), X[::-1, ::-1].copy()[::-1, ::-1]):
        out[:] = np.nan
        call.gather(rows, np.append(index, rng.integers(0, N + 3, 20)), pixel, out)  # more rows are to come
        assert_close(out, X[index] / 255, "float32")
    out[:] = np.nan
    call.scale(X[:N], pixel, out)
    assert_close(out, X[:N] / 255, "float32")


def test_pixels_are_the_same_bits_in_any_order():
    X = np.arange(256, dtype=np.uint8).repeat(3).reshape(256, 3)
    gathered, scaled = np.empty((2, 256, 3), np.float32)
    call.gather(X, np.arange(256), np.float32(1 / 255), gathered)
    call.scale(X, np.float32(1 / 255), scaled)
    assert gathered.tobytes() == scaled.tobytes()
    assert scaled[0, 0] == 0
    assert scaled[255, 0] == pytest.approx(1, abs=2e-7)
