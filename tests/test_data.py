"""Readers: every format round trip, and every refusal. A damaged or lying file ends in DataError, nothing else."""

import builtins
import gzip
import hashlib
import os
import re
import sys
import tracemalloc
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastmlp import idx
from fastmlp.data import DataError, read

RNG = np.random.default_rng(0)


def idx_bytes(array, magic=None):
    return (magic or bytes((0, 0, 8, array.ndim))) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_idx(folder, part, rows, side=3, name="{}-{}-idx{}-ubyte", pack=False):
    """Images (rows, side, side) and labels (rows,) of one part, under MNIST's names; returns both arrays."""
    images, labels = RNG.integers(0, 256, (rows, side, side), np.uint8), RNG.integers(0, 10, rows, np.uint8)
    for kind, array in (("images", images), ("labels", labels)):
        data = idx_bytes(array)
        file = name.format(part, kind, array.ndim)
        (folder / (file + ".gz" * pack)).write_bytes(gzip.compress(data) if pack else data)
    return images.reshape(rows, -1), labels


def write(path, text):
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def refusal(*words, source, **options):
    """The message of the DataError that reading must end in, which holds all the words."""
    with pytest.raises(DataError) as caught:
        read(source, **options)
    message = re.sub(r"/\S*/", "", str(caught.value))  # without folders: their names hold the words of the test's id
    assert all(word in message for word in words), message
    return message


# --- IDX folders ---


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", ["{}-{}-idx{}-ubyte", "{}-{}.idx{}-ubyte"])
def test_folder_round_trip(tmp_path, name, pack):
    X, y = write_idx(tmp_path, "train", 18, name=name, pack=pack)
    X_test, y_test = write_idx(tmp_path, "t10k", 5, name=name, pack=pack)
    data = read(str(tmp_path))
    assert data.name == str(tmp_path)
    for got, expected in zip(
        (data.X, data.y, *data.validation, *data.test), (X[:14], y[:14], X[14:], y[14:], X_test, y_test), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    assert (data.X.dtype, data.y.dtype, data.test[1].dtype) == (np.uint8, np.int64, np.int64)


@pytest.mark.parametrize(
    "rows, split",
    [(2, (1, 1)), (53_999, (41_999, 12_000)), (54_000, (42_000, 12_000)), (60_000, (42_000, 12_000))],
)
def test_folder_split(tmp_path, rows, split):
    X, _ = write_idx(tmp_path, "train", rows, side=1)
    data = read(tmp_path)
    assert (len(data.X), len(data.validation[0])) == split
    assert data.test is None
    np.testing.assert_array_equal(np.concatenate([data.X, data.validation[0]]), X[: sum(split)])


def test_folder_refusals(tmp_path):
    refusal("train-images", "found neither", source=tmp_path)
    write_idx(tmp_path, "train", 1)
    refusal("2 training images or more", source=tmp_path)
    write_idx(tmp_path, "train", 9)
    write_idx(tmp_path, "t10k", 2, side=4)
    refusal("9 pixels", "16", source=tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    refusal("images and labels of t10k", source=tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").unlink()
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(8, np.uint8)))
    refusal("9 images and 8 labels", source=tmp_path)


def header(*counts):
    return bytes((0, 0, 8, len(counts))) + np.array(counts, ">u4").tobytes()


IMAGES = idx_bytes(np.arange(18, dtype=np.uint8).reshape(2, 3, 3))
BAD_IDX = {
    "empty": (b"", "nothing"),
    "wrong magic": (b"\0\0\x0d" + IMAGES[3:], "00000803"),
    "labels for images": (idx_bytes(np.zeros(2, np.uint8)), "00000801"),
    "header cut": (IMAGES[:9], "cut short"),
    "body cut": (IMAGES[:-1], "found 17"),
    "too long": (IMAGES + b"\0", "found more"),
    "no rows": (header(0, 3, 3) + b"", "at least one row"),
    "terabytes": (header(2**31, 2**10, 2**10) + b"1234", f"{2**51} bytes, found a file of only"),
    "all counts full": (header(*[2**32 - 1] * 3) + b"1234", f"{(2**32 - 1) ** 3} bytes, found a file of only"),
}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("kind", BAD_IDX)
def test_idx_refusals(tmp_path, kind, pack):
    content, words = BAD_IDX[kind]
    write(tmp_path / f"train-images-idx3-ubyte{'.gz' * pack}", content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(2, np.uint8)))
    refusal("train-images-idx3-ubyte", words, source=tmp_path)


PACKED = gzip.compress(IMAGES, mtime=0)


@pytest.mark.parametrize(
    "content",
    [b"", IMAGES, PACKED[:-12], PACKED[:-4], PACKED[:-8] + b"crc!" + PACKED[-4:], PACKED[:12] + b"\xff" + PACKED[13:]],
    ids=["empty", "not gzip", "cut", "length cut", "bad CRC", "bad stream"],
)
def test_damaged_gzip_is_refused(tmp_path, content):
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(2, np.uint8)))
    refusal("train-images-idx3-ubyte.gz", source=tmp_path)


@pytest.mark.parametrize(
    "counts", [(2, 3, 3), (60, 1000, 1000), (2**20, 2**10, 2**10)], ids=["bomb", "lie", "huge lie"]
)
def test_a_lying_header_or_a_bomb_allocates_next_to_nothing(tmp_path, counts):
    """A bomb: 64 MB of zeros behind a header of 18 bytes. A lie: 60 MB, which gzip could pack, before 100 KB."""
    body = bytes(64 << 20) if counts == (2, 3, 3) else bytes(18) + os.urandom(100_000)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(header(*counts) + body, 1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="asks for"):
            idx.read_idx(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# --- MNIST ---


def fake_pooch(monkeypatch, folder, retrieve):
    monkeypatch.setitem(
        sys.modules, "pooch", types.SimpleNamespace(os_cache=lambda name: folder / name, retrieve=retrieve)
    )


def test_mnist_is_fetched_with_its_published_sums(tmp_path, monkeypatch):
    asked = {}

    def retrieve(url, known_hash, fname, path):
        asked[url] = known_hash
        if fname == "t10k-labels-idx1-ubyte.gz":  # the last: now all are there
            path.mkdir()
            write_idx(path, "train", 18, pack=True)
            write_idx(path, "t10k", 3, pack=True)

    fake_pooch(monkeypatch, tmp_path, retrieve)
    data = read("mnist")
    assert (data.name, len(data.X), len(data.validation[0]), len(data.test[0])) == ("mnist", 14, 4, 3)
    mirror = "https://ossci-datasets.s3.amazonaws.com/mnist/"
    assert asked == {
        mirror + "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
        mirror + "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
        mirror + "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
        mirror + "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
    }


@pytest.mark.parametrize("error", [ConnectionError("no route"), ValueError("MD5 hash does not match")])
def test_mnist_offline_or_changed_says_what_to_do(tmp_path, monkeypatch, error):
    def retrieve(*_, **__):
        raise error

    fake_pooch(monkeypatch, tmp_path, retrieve)
    refusal(str(error), "Offline?", "four IDX files", source="mnist")


def test_mnist_without_pooch_says_how_to_install_it(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "pooch":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    refusal("fastmlp[data]", "four IDX files", source="mnist")


@pytest.mark.skipif(
    "FASTMLP_MNIST" not in os.environ, reason="FASTMLP_MNIST does not name a folder with MNIST's four files"
)
def test_the_real_mnist():
    """Sums of the unpacked files, as published: they do not depend on how the files are packed."""
    folder = Path(os.environ["FASTMLP_MNIST"])
    data = read(folder)
    X, y = (np.concatenate(pair) for pair in zip((data.X, data.y), data.validation, strict=True))
    assert (data.X.shape, data.validation[0].shape, data.test[0].shape) == ((42_000, 784), (12_000, 784), (10_000, 784))
    assert np.bincount(data.test[1]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    images, labels = (idx.read_idx(idx._find(folder, f"train-{k}", n), n) for k, n in (("images", 3), ("labels", 1)))
    np.testing.assert_array_equal(X, images.reshape(-1, 784)[:54_000])
    np.testing.assert_array_equal(y, labels[:54_000])
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert hashlib.md5(idx_bytes(images)).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    assert hashlib.md5(idx_bytes(labels)).hexdigest() == "a25bea736e30d166cdddb491f175f624"


# --- CSV ---


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.CSV"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_kaggle_csv_round_trip(tmp_path, name, end, mark):
    X, y = RNG.integers(0, 256, (5, 784), np.uint8), np.array([3, 0, 12, -1, 3])
    lines = [",".join(["label", *(f"pixel{i}" for i in range(784))])]
    lines += [",".join(map(str, [label, *row])) for label, row in zip(y, X, strict=True)]
    data = read(write(tmp_path / name, mark + end.join(lines) + end))
    np.testing.assert_array_equal(data.X, X)
    np.testing.assert_array_equal(data.y, y)
    assert (data.X.dtype, data.y.dtype, data.validation, data.test) == (np.uint8, np.int64, None, None)
    assert data.X.flags.c_contiguous


@pytest.mark.parametrize(
    "text, X, y",
    [
        ("a,label\n1,x\n255,y", np.array([[1], [255]], np.uint8), ["x", "y"]),
        ("a,label\n1.0,7\n2e0,8\n", np.array([[1], [2]], np.uint8), [7, 8]),
        ("a,label\n256,7\n2,8\n", np.array([[256], [2]], np.float32), [7, 8]),
        ("a,label\n-1,7\n2,8\n", np.array([[-1], [2]], np.float32), [7, 8]),
        ("a,label\n0.5,7\n2,8\n", np.array([[0.5], [2]], np.float32), [7, 8]),
        ("a,label\n1,007\n2,8\n", np.array([[1], [2]], np.uint8), ["007", "8"]),
        ("a,label\n1,7\n2,cat\n", np.array([[1], [2]], np.uint8), ["7", "cat"]),
        ("a,label\n1,99999999999999999999\n", np.array([[1]], np.uint8), ["99999999999999999999"]),
        ('"a","label"\n"1","one, ""1"""\n\n2, zwei ü \n\n', np.array([[1], [2]], np.uint8), ['one, "1"', "zwei ü"]),
        ('a,label\n1,"two\nlines"\n2,b\n', np.array([[1], [2]], np.uint8), ["two\nlines", "b"]),
    ],
)  # fmt: skip
def test_csv_cells(tmp_path, text, X, y):
    data = read(write(tmp_path / "a.csv", text))
    np.testing.assert_array_equal(data.X, X, strict=True)
    assert data.y.tolist() == y


def test_csv_label_column(tmp_path):
    path = write(tmp_path / "a.csv", "a,kind,label\n1,x,3\n2,y,4\n")
    refusal("line 2", "'kind'", "'x'", source=path)
    path = write(tmp_path / "a.csv", "a, kind\n1,x\n2,y\n")
    assert read(path, target="kind").y.tolist() == ["x", "y"]
    assert read(path, target="kind", labelled=False).y.tolist() == ["x", "y"]
    refusal("'label'", "a, kind", "--target", source=path)
    refusal("'kin'", "a, kind", "--target", source=path, target="kin")
    path = write(tmp_path / "test.csv", "a,b\n1,0.5\n2,3\n")
    for target in (None, "kind"):
        data = read(path, labelled=False, target=target)
        assert data.y is None
        np.testing.assert_array_equal(data.X, np.array([[1, 0.5], [2, 3]], np.float32), strict=True)


BAD_CSV = {
    "": ("first line",),
    "\n1,2\n": ("first line",),
    "a,label\n": ("below the header",),
    "a,label\n\n \n": ("below the header",),
    "label\n1\n": ("features",),
    "a,b,a,label\n1,2,3,4\n": ("'a' twice",),
    "a,label\n1,2\n\n3\n4,5\n": ("line 4", "expected 2 fields", "found 1"),
    "a,label\n1,2\n1,2,3\n": ("line 3", "expected 2 fields", "found 3"),
    "a,label\n1,2,3\n4,5,6\n": ("line 2", "expected 2 fields", "found 3"),
    "a,b,label\n1,2\n": ("line 2", "expected 3 fields", "found 2"),
    "a,b,label\n1,2,0\n3,cat,0\n": ("line 3", "'b'", "'cat'"),
    "a,b,label\n1,2,0\n3,,0\n": ("line 3", "'b'", "an empty cell"),
    "a,b,label\n1,2,0\n3, ,0\n": ("line 3", "'b'", "an empty cell"),
    "a,b,label\n0.5,2,0\nnan,3,0\n": ("line 3", "'a'", "'nan'", "finite"),
    "a,b,label\n-inf,2,0\n": ("line 2", "'a'", "'-inf'", "finite"),
    "a,b,label\n1e39,2,0\n": ("line 2", "'a'", "'1e39'", "finite"),
    "a,b,label\n1_0,2,0\n": ("line 2", "'a'", "'1_0'"),
    "a,b,label\n٣,2,0\n": ("line 2", "'a'", "'٣'"),
    "a,b,label\n1,2,\n": ("line 2", "'label'", "a label", "an empty cell"),
    "a,b,label\n1,2,0\n1,2,NaN\n": ("line 3", "'label'", "a label", "'NaN'"),
    'a,label\n1,"two\nlines"\nx,b\n': ("line 4", "'a'", "'x'"),
    "a,label\r\n1,2\r\nx,2\r\n": ("line 3", "'a'", "'x'"),
    "a;label\n1;2\n": ("'label'", "a;label"),
}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
@pytest.mark.parametrize("text", BAD_CSV)
def test_csv_refusals(tmp_path, text, name):
    path = write(tmp_path / name, text)
    refusal(name, *BAD_CSV[text], source=path)


PACKED_CSV = gzip.compress(b"a,label\n1,2\n", mtime=0)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", b"a,label\n\xff,2\n"),
        ("a.csv", b"\xff\xfea\0"),
        ("a.csv.gz", b"a,label\n1,2\n"),
        ("a.csv.gz", PACKED_CSV[:-5]),
        ("a.csv.gz", PACKED_CSV[:-8] + bytes(8)),
    ],
)
def test_csv_not_text_or_damaged(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refusal(name, "check it", source=tmp_path / name)


# --- NumPy files ---

X = RNG.normal(size=(6, 4))
Y = np.array([3, 1, 2, 3, 1, 2], np.uint8)


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


def npy(tmp_path, name, array):
    np.save(tmp_path / name, array)
    return tmp_path / name


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


# --- what is no dataset at all ---


@pytest.mark.parametrize("name", ["none.csv", "none.npz", "none.npy", "none"])
def test_missing_sources_are_refused(tmp_path, name):
    refusal(name, "found none", source=str(tmp_path / name))


@pytest.mark.parametrize("name", ["a.parquet", "a.gz", "a"])
def test_unknown_kinds_are_refused(tmp_path, name):
    refusal(".csv, .csv.gz, .npz, .npy", "folder", source=write(tmp_path / name, "1"))


def test_options_of_another_kind_of_source_are_refused(tmp_path):
    for source in (None, "mnist", tmp_path, npy(tmp_path, "x.npy", X)):
        refusal("target='a'", ".csv", source=source, target="a")
    for source in (None, "mnist", tmp_path, write(tmp_path / "a.csv", "a,label\n1,2\n")):
        refusal("labels='y.npy'", ".npy", source=source, labels="y.npy")
