"""Every operation of every CPU backend against the oracle: values, types, layout, in place."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tolerance import assert_close

rows_ = st.integers(1, 70)
units = st.integers(1, 37)
classes = st.integers(1, 13)
seeds = st.integers(0, 2**32 - 1)


def normal(seed, dtype, *shapes):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def dirty(shape, dtype):
    """A buffer of NaN: whatever is not written shows."""
    return np.full(shape, np.nan, dtype)


@given(rows_, units, units, st.booleans(), seeds)
def test_affine(backend, dtype, n, i, h, relu, seed):
    x, W, b = normal(seed, dtype, (n, i), (i, h), h)
    kept = x.copy(), W.copy(), b.copy()
    out = dirty((n, h), dtype)
    assert backend.ops.affine(x, W, b, out, relu) is None
    z = x.astype(np.float64) @ W + b
    assert_close(out, np.maximum(z, 0) if relu else z, dtype)
    assert out.dtype == dtype
    assert out.flags.c_contiguous
    for got, want in zip((x, W, b), kept, strict=True):
        np.testing.assert_array_equal(got, want)


def test_affine_lets_nan_and_infinity_through_relu(backend, dtype):
    x = np.array([[np.nan], [np.inf], [-np.inf], [2], [-2], [0]], dtype)
    out = dirty((6, 1), dtype)
    backend.ops.affine(x, np.ones((1, 1), dtype), np.zeros(1, dtype), out, True)
    np.testing.assert_array_equal(out[:, 0], [np.nan, np.inf, 0, 2, 0, 0])


def test_affine_takes_rows_that_may_not_be_written(backend, dtype):
    x, W, b = normal(0, dtype, (5, 4), (4, 3), 3)
    x.flags.writeable = False
    out = dirty((5, 3), dtype)
    backend.ops.affine(x, W, b, out, False)
    assert_close(out, x.astype(np.float64) @ W + b, dtype)


@given(rows_, classes, st.booleans(), seeds)
def test_softmax_cross_entropy(backend, dtype, n, o, in_place, seed):
    (z,) = normal(seed, dtype, (n, o))
    y = np.random.default_rng(seed).integers(0, o, n).astype(np.int32)
    exact = z.astype(np.float64)
    onehot = np.eye(o)[y]  # (N, O)
    dz = z if in_place else dirty((n, o), dtype)
    totals = np.array([10.0, 20.0])
    backend.ops.softmax_cross_entropy(z, y, 1 / n, dz, totals)
    assert_close(dz, (oracle.softmax(exact) - onehot) / n, dtype)
    assert_close(totals[0], 10 + oracle.losses(exact, y).sum(), dtype)
    assert totals[1] == 20 + np.sum(exact.argmax(axis=1) == y)
    assert dz.dtype == dtype
    assert totals.dtype == np.float64
    if not in_place:
        np.testing.assert_array_equal(z, exact.astype(dtype))


def test_in_place_softmax_gives_the_same_bits(backend, dtype):
    (z,) = normal(1, dtype, (9, 5))
    y, beside, totals = np.arange(9, dtype=np.int32) % 5, dirty((9, 5), dtype), np.zeros((2, 2))
    backend.ops.softmax_cross_entropy(z, y, 0.5, beside, totals[0])
    backend.ops.softmax_cross_entropy(z, y, 0.5, z, totals[1])
    np.testing.assert_array_equal(z, beside)
    np.testing.assert_array_equal(totals[0], totals[1])


def test_of_equal_logits_the_first_is_the_prediction(backend, dtype):
    z = np.array([[1, 1, 0], [1, 1, 0], [0, 2, 2], [3, 3, 3]], dtype)
    totals = np.zeros(2)
    backend.ops.softmax_cross_entropy(z, np.array([0, 1, 1, 2], np.int32), 1.0, dirty(z.shape, dtype), totals)
    assert totals[1] == 2  # rows 0 and 2


def test_huge_logits_neither_overflow_nor_warn(backend, dtype):
    z = np.array([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4]], dtype)
    y = np.array([0, 0, 2], np.int32)
    dz, totals = dirty(z.shape, dtype), np.zeros(2)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        backend.ops.softmax_cross_entropy(z, y, 1.0, dz, totals)
    third = 1 / 3
    assert_close(dz, [[0, 0, 0], [-1, 1, 0], [third, third, third - 1]], dtype)
    assert_close(totals[0], 0 + 2e4 + np.log(3), dtype)  # never log(0)


def test_a_nan_logit_makes_the_loss_nan(backend, dtype):
    totals = np.zeros(2)
    z = np.array([[0, 1], [np.nan, 1], [0, 1]], dtype)
    dz = dirty(z.shape, dtype)
    backend.ops.softmax_cross_entropy(z, np.zeros(3, np.int32), 1.0, dz, totals)
    assert np.isnan(totals[0])
    assert np.isnan(dz).any(axis=1).tolist() == [False, True, False]


@given(rows_, units, classes, seeds)
def test_backprop_relu(backend, dtype, n, h, o, seed):
    dz, W, a = normal(seed, dtype, (n, o), (h, o), (n, h))
    np.maximum(a, 0, out=a)
    kept = dz.copy(), W.copy(), a.copy()
    out = dirty((n, h), dtype)
    backend.ops.backprop_relu(dz, W, a, out)
    assert_close(out, (dz.astype(np.float64) @ W.T) * (a > 0), dtype)
    assert out.dtype == dtype
    for got, want in zip((dz, W, a), kept, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_mask_is_shut_at_zero_and_lets_nan_and_infinity_through(backend, dtype):
    a = np.array([[1, 0, -0.0, 1e-30, -1, np.nan]], dtype)
    out = dirty(a.shape, dtype)
    backend.ops.backprop_relu(np.full((1, 1), 3, dtype), np.ones((6, 1), dtype), a, out)
    assert out[0].tolist() == [3, 0, 0, 3, 0, 0]
    for value in (np.nan, np.inf, -np.inf):
        out = dirty((1, 1), dtype)
        backend.ops.backprop_relu(np.full((1, 1), value, dtype), np.ones((1, 1), dtype), np.ones((1, 1), dtype), out)
        np.testing.assert_array_equal(out, [[value]])


@given(rows_, units, classes, st.booleans(), seeds)
def test_weight_gradient(backend, dtype, n, h, o, add, seed):
    a, dz, dW, db = normal(seed, dtype, (n, h), (n, o), (h, o), o)
    want_W = a.astype(np.float64).T @ dz + (dW if add else 0)
    want_b = dz.astype(np.float64).sum(axis=0) + (db if add else 0)
    if not add:
        dW[:], db[:] = np.nan, np.nan  # what stood there must not matter
    backend.ops.weight_gradient(a, dz, dW, db, add)
    assert_close(dW, want_W, dtype)
    assert_close(db, want_b, dtype)
    assert dW.dtype == db.dtype == dtype


# Sums of squares, and what is made of them.


@given(units, seeds)
def test_add_squares(backend, dtype, n, seed):
    (w,) = normal(seed, dtype, n)
    kept, out = w.copy(), np.array([2.0])
    backend.ops.add_squares(w, 0.5, out)
    assert out.dtype == np.float64
    assert_close(out[0], 2 + 0.5 * (w.astype(np.float64) ** 2).sum(), np.float64)
    np.testing.assert_array_equal(w, kept)


def test_squares_are_summed_in_double_precision(backend):
    out = np.zeros(1)
    backend.ops.add_squares(np.full(1_000_001, 0.1, np.float32), 1.0, out)
    assert out[0] == pytest.approx(1_000_001 * float(np.float32(0.1)) ** 2, rel=1e-12)


@given(units, seeds)
def test_clip(backend, dtype, n, seed):
    (g,) = normal(seed, dtype, n)
    exact = g.astype(np.float64)
    length = np.sqrt((exact**2).sum())
    for longest in (2 * length, length / 2):
        clipped = g.copy()
        backend.ops.clip(clipped, longest)
        assert clipped.dtype == dtype
        if longest > length:
            np.testing.assert_array_equal(clipped, g)
        else:
            assert_close(clipped, exact / 2, dtype)


def test_a_gradient_whose_square_float32_cannot_hold_is_clipped_and_not_lost(backend, dtype):
    g = np.array([3e25, -4e25], dtype)
    backend.ops.clip(g, 1.0)
    assert_close(g, [0.6, -0.8], dtype)


def test_clip_leaves_no_gradient_as_it_is_and_hides_no_nan(backend, dtype):
    for values in ([0, 0], [np.nan, 1]):
        g = np.array(values, dtype)
        backend.ops.clip(g, 0.5)
        np.testing.assert_array_equal(g, values)


# The rows that enter the first layer.

INDEXES = {
    "all": slice(0, 6),
    "middle": slice(2, 5),
    "one": slice(3, 4),
    "shuffled": np.array([5, 0, 3]),
    "repeated": np.array([2, 2, 2, 1]),
    "single": np.array([4]),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_pixels_are_divided_by_255(backend, dtype, index):
    X = np.random.default_rng(0).integers(0, 256, (6, 5), dtype=np.uint8)
    X[3, 0], X[3, 1] = 0, 255
    want = X[index] / 255.0
    out = dirty(want.shape, dtype)
    x = backend.ops.rows(X, index, out)
    assert np.shares_memory(x, out)
    assert x.dtype == dtype
    assert x.flags.c_contiguous
    assert_close(x, want, dtype)


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
def test_float_rows_are_taken_as_they_are(backend, dtype, index):
    (X,) = normal(0, dtype, (6, 5))
    out = dirty(X[index].shape, dtype)
    x = backend.ops.rows(X, index, out)
    np.testing.assert_array_equal(x, X[index])
    assert x.dtype == dtype
    assert x.flags.c_contiguous
    assert np.shares_memory(x, X if isinstance(index, slice) else out)  # a slice is a view, without a copy


@pytest.mark.parametrize("index", [slice(1, 4), np.array([3, 0])], ids=["slice", "index"])
@pytest.mark.parametrize("layout", ["fortran", "strided", "reversed", "read-only"])
def test_pixels_of_any_layout(backend, dtype, layout, index):
    X = np.random.default_rng(0).integers(0, 256, (6, 8), dtype=np.uint8)
    X = {"fortran": np.asfortranarray(X), "strided": X[:, ::2], "reversed": X[::-1, ::-1], "read-only": X.copy()}[
        layout
    ]
    X.flags.writeable = layout != "read-only"
    out = dirty(X[index].shape, dtype)
    assert_close(backend.ops.rows(X, index, out), X[index] / 255.0, dtype)


@given(rows_, units, seeds)
def test_rows_of_any_count(backend, dtype, n, i, seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 256, (n, i), dtype=np.uint8)
    index = rng.permutation(n)
    assert_close(backend.ops.rows(X, index, dirty((n, i), dtype)), X[index] / 255.0, dtype)
