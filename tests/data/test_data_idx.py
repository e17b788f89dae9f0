"""Folders of IDX files: round trips, and every refusal. A damaged or lying file ends in DataError, nothing else."""

import gzip
import os

import numpy as np
import pytest
from traced import peak
from written import idx_bytes, refusal, write, write_idx

from fastmlp import idx
from fastmlp.data import DataError, read


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

    def refused():
        with pytest.raises(DataError, match="asks for"):
            idx.read_idx(path, 3)

    assert peak(refused) < 8 << 20
