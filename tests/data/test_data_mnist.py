"""MNIST: how it is fetched, and that the real one is what was published."""

import builtins
import hashlib
import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from written import idx_bytes, refusal, write_idx

from fastmlp import idx
from fastmlp.data import read


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
