"""CSV files: round trips, and every refusal. A damaged file ends in DataError, nothing else."""

import gzip

import numpy as np
import pytest
from written import RNG, refusal, write

from fastmlp.data import read


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
    assert data.columns == tuple(f"pixel{i}" for i in range(784))


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
    assert read(path, target="kind").columns == ("a",)
    refusal("'label'", "a, kind", "--target", source=path)
    refusal("'kin'", "a, kind", "--target", source=path, target="kin")
    path = write(tmp_path / "test.csv", "a,b\n1,0.5\n2,3\n")
    for target in (None, "kind"):
        data = read(path, labelled=False, target=target)
        assert data.y is None
        assert data.columns == ("a", "b")
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
