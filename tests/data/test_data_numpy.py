"""NumPy files: round trips, and every refusal. A damaged or lying file ends in DataError, nothing else."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from written import RNG, X, Y, npy, refusal, write

from fastmlp.data import DataError, read


@pytest.mark.parametrize(
    "y, expected", [(Y, Y), (Y.reshape(6, 1), Y), (Y.astype(float), Y), (list("abcabc"), list("abcabc"))]
)
def test_npz_round_trip(tmp_path, y, expected):
    np.savez(tmp_path / "a.npz", X=X, y=y)
    data = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.X, X, strict=True)
    assert data.y.tolist() == list(expected)
    assert data.y.dtype.kind in "U" or data.y.dtype == np.int64
    np.savez_compressed(tmp_path / "b.npz", X=X)
    assert read(tmp_path / "b.npz", labelled=False).y is None


def test_npz_of_keras_names_has_a_test_set(tmp_path):
    images = RNG.integers(0, 256, (6, 3, 3), np.uint8)
    np.savez(tmp_path / "a.npz", x_train=images, y_train=Y, x_test=images[:2], y_test=Y[:2])
    data = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.X, images.reshape(6, 9), strict=True)
    np.testing.assert_array_equal(data.test[0], images[:2].reshape(2, 9), strict=True)
    np.testing.assert_array_equal(data.test[1], Y[:2].astype(np.int64), strict=True)


BAD_NPZ = {
    "other names": (dict(a=X, b=Y), "found a, b"),
    "no arrays": ({}, "found no arrays"),
    "no labels": (dict(X=X), "found X"),
    "no features": (dict(y=Y), "found y"),
    "half a test set": (dict(x_train=X, y_train=Y, x_test=X), "both or neither"),
    "test of another width": (dict(x_train=X, y_train=Y, x_test=X[:, :2], y_test=Y), "4 features, found 2"),
    "lengths differ": (dict(X=X, y=Y[:5]), "6 rows"),
    "test lengths differ": (dict(x_train=X, y_train=Y, x_test=X[:2], y_test=Y), "2 rows"),
    "X of one axis": (dict(X=X[0], y=Y), "(rows, features)"),
    "X without rows": (dict(X=X[:0], y=Y[:0]), "(rows, features)"),
    "X complex": (dict(X=X + 1j, y=Y), "real numbers"),
    "X text": (dict(X=X.astype(str), y=Y), "real numbers"),
    "y one-hot": (dict(X=X, y=np.eye(6)), "(6, 6)"),
    "y with fractions": (dict(X=X, y=Y + 0.5), "whole numbers or strings"),
    "y with NaN": (dict(X=X, y=np.where(Y > 2, np.nan, Y)), "whole numbers or strings"),
    "X pickled": (dict(X=X.astype(object), y=Y), "pickled"),
    "y pickled": (dict(X=X, y=Y.astype(object)), "pickled"),
}


@pytest.mark.parametrize("kind", BAD_NPZ)
def test_npz_refusals(tmp_path, kind):
    arrays, words = BAD_NPZ[kind]
    np.savez(tmp_path / "a.npz", **arrays)
    refusal("a.npz", words, source=tmp_path / "a.npz")


@pytest.mark.parametrize("shape", [(6, 784), (6, 28, 28)])
def test_npy_stays_on_disk(tmp_path, shape):
    images = RNG.integers(0, 256, shape, np.uint8)
    data = read(npy(tmp_path, "x.npy", images), labels=npy(tmp_path, "y.npy", Y))
    assert isinstance(data.X, np.memmap) and not data.X.flags.owndata and not data.X.flags.writeable
    np.testing.assert_array_equal(data.X, images.reshape(6, 784))
    np.testing.assert_array_equal(data.y, Y.astype(np.int64), strict=True)
    assert read(tmp_path / "x.npy", labelled=False).y is None


def test_npy_refusals(tmp_path):
    x, y = npy(tmp_path, "x.npy", X), npy(tmp_path, "y.npy", Y)
    refusal("labels=", source=x)
    refusal("x.npy", "(rows, features)", source=npy(tmp_path, "x.npy", X[0]), labels=y)
    refusal("x.npy", "object", source=npy(tmp_path, "x.npy", X.astype(object)), labels=y)
    x = npy(tmp_path, "x.npy", X)
    refusal("y.npy", "6 rows", "(5,)", source=x, labels=npy(tmp_path, "y.npy", Y[:5]))
    refusal("y.npy", "object", source=x, labels=npy(tmp_path, "y.npy", Y.astype(object)))
    refusal("none.npy", "found none", source=x, labels=tmp_path / "none.npy")
    refusal("a.csv", "numpy.save", source=x, labels=write(tmp_path / "a.csv", "1"))
    lying = x.read_bytes().replace(b"(6, 4)", b"(6000000000000, 4)")
    x.write_bytes(lying)
    refusal("x.npy", source=x, labels=y)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 600), value=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_numpy_file_is_read_or_refused(tmp_path, name, at, value, cut):
    """No byte changed or cut anywhere lets another exception out."""
    path = tmp_path / name
    np.save(path, X) if name == "a.npy" else np.savez_compressed(path, X=X)
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at:] = b"" if cut else bytes([value]) + content[at + 1 :]
    path.write_bytes(content)
    if cut:
        refusal(name, source=path, labelled=False)
        return
    try:
        assert read(path, labelled=False).X.ndim == 2
    except DataError as error:
        assert name in str(error)
