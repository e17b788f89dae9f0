"""The built-in digits: MNIST's size, honest split, same bytes for a seed, and learnable."""

import hashlib
import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from fastmlp import digits as module
from fastmlp.data import digits, read


@pytest.fixture(scope="module")
def data():
    return digits()


def test_has_the_size_and_types_of_the_reference_split(data):
    X_val, y_val = data.validation
    assert (data.name, data.test) == ("built-in digits", None)
    assert (data.X.shape, data.X.dtype, data.X.flags.c_contiguous) == ((42_000, 784), np.uint8, True)
    assert (X_val.shape, X_val.dtype) == ((12_000, 784), np.uint8)
    assert (data.y.shape, data.y.dtype, y_val.shape, y_val.dtype) == ((42_000,), np.int64, (12_000,), np.int64)


def test_same_seed_same_bytes_and_another_seed_others(data):
    """The sum is pinned: every product is exact, so it holds on any machine and any BLAS."""
    assert (
        hashlib.md5(data.X.tobytes() + data.validation[0].tobytes() + data.y.tobytes()).hexdigest()
        == "a513f7a95ae0fb5ef6f76c1bcd65e915"
    )
    again, other = read(None), digits(seed=1)
    for a, b in zip((again.X, again.y, *again.validation), (data.X, data.y, *data.validation), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(other.X, data.X)


def test_enlarging_weights_are_exact_in_float32():
    matrix = module._enlarging(0.1, 0.93, np.array([0.7, -1.2]))
    assert (matrix.shape, matrix.dtype) == ((64, 784), np.float32)
    np.testing.assert_array_equal(matrix * 1024, np.rint(matrix * 1024))


def test_enlarging_by_a_loop_gives_the_same_image():
    """Every pixel by its own formula: turned and scaled about the centre, then shifted, interpolated by cubics."""
    rng, turn, zoom, shift = np.random.default_rng(0), 0.15, 1.08, (1.2, -0.6)
    small = rng.integers(0, 17, (8, 8))

    def cubic(d):
        d = abs(d)
        return 1.5 * d**3 - 2.5 * d**2 + 1 if d < 1 else -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0

    large = np.zeros((28, 28))
    for row in range(28):
        for column in range(28):
            dy, dx = row - 13.5 - shift[0], column - 13.5 - shift[1]
            v = (np.cos(turn) * dy - np.sin(turn) * dx) / 2.5 / zoom + 3.5
            u = (np.sin(turn) * dy + np.cos(turn) * dx) / 2.5 / zoom + 3.5
            large[row, column] = sum(cubic(v - i) * cubic(u - j) * small[i, j] for i in range(8) for j in range(8))
    made = small.reshape(1, 64).astype(np.float32) @ module._enlarging(turn, zoom, np.array(shift))
    np.testing.assert_allclose(made.reshape(28, 28), large, atol=16 * 64 / 2048)


def test_no_image_is_on_both_sides(data, monkeypatch):
    """With variation off, each row shows which image it was made of."""
    plain = module._enlarging(0.0, 1.0, np.zeros(2))
    monkeypatch.setattr(module, "_enlarging", lambda *_: plain)
    still = digits()
    sides = [{row.tobytes() for row in X} for X in (still.X, still.validation[0])]
    assert [len(side) for side in sides] == [1_393, 404]  # all 1,797, about 7 : 2
    assert not sides[0] & sides[1]
    np.testing.assert_array_equal(still.y, data.y)


def test_every_plain_image_is_there_and_classes_are_even(data):
    from sklearn.datasets import load_digits

    plain = load_digits().data.astype(np.float32) @ module._enlarging(0.0, 1.0, np.zeros(2))
    plain = {row.tobytes() for row in np.clip(plain * 25.5 - 76.5, 0, 255).astype(np.uint8)}
    rows = [{row.tobytes() for row in X} for X in (data.X, data.validation[0])]
    assert plain <= rows[0] | rows[1]
    assert len(plain & rows[0]) == 1_393
    for y in (data.y, data.validation[1]):
        share = np.bincount(y) / len(y)
        assert share.shape == (10,) and share.min() > 0.09 and share.max() < 0.11


def test_rows_are_mixed_and_varied(data):
    assert len({row.tobytes() for row in data.X}) > 41_000
    assert len(set(data.y[:100])) == 10
    assert data.X[:, 0].max() == 0 and data.X.max() == 255  # dark corner, solid strokes


def test_a_small_network_learns_them(data):
    from sklearn.neural_network import MLPClassifier

    X_val, y_val = data.validation
    model = MLPClassifier((160,), max_iter=5, learning_rate_init=0.003, random_state=0)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # five epochs do not converge
        model.fit(data.X[:21_000] / np.float32(255), data.y[:21_000])
    assert model.score(X_val / np.float32(255), y_val) > 0.96
