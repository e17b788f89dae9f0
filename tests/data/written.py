"""Files of every format, written for the readers to read, and the refusal that a bad one must end in."""

import gzip
import re

import numpy as np
import pytest

from fastmlp.data import DataError, read

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
Y = np.array([3, 1, 2, 3, 1, 2], np.uint8)


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


def npy(tmp_path, name, array):
    np.save(tmp_path / name, array)
    return tmp_path / name


def refusal(*words, source, **options):
    """The message of the DataError that reading must end in, which holds all the words."""
    with pytest.raises(DataError) as caught:
        read(source, **options)
    message = re.sub(r"/\S*/", "", str(caught.value))  # without folders: their names hold the words of the test's id
    assert all(word in message for word in words), message
    return message
