"""IDX files, the format of MNIST: a magic number, big-endian counts, then one byte for each pixel or label.

Letters: N images, R rows and C columns of pixels each, I = R C.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .errors import DataError

Pair = tuple[np.ndarray, np.ndarray]  # images or features (N, I), labels (N,)

MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MD5 = {  # of the files as the mirror serves them
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
TRAINING, VALIDATION = 42_000, 12_000  # rows of the reference split; smaller sets keep its 7 : 2
PIECE = 1 << 20  # bytes read at a time
INFLATION = 1032  # DEFLATE cannot pack more than 1032 bytes into one


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever the system, gzip, csv or the text decoder has against the file into a DataError that names it."""
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a whole, readable file, but: {error}; check it or fetch it again") from error


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read one IDX file of unsigned bytes, plain or (by its name) gzipped.

    Memory never exceeds what the file really holds: the header's counts are believed only as far as the file's size
    allows, and bytes are unpacked piece by piece up to one beyond those counts.

    Parameters
    ----------
    path : Path
    ndim : int
        3 for images, 1 for labels.

    Returns
    -------
    ndarray of uint8, (N, R, C) or (N,)

    Raises
    ------
    DataError
        Unreadable, damaged, another magic number, or counts that do not fit the file.
    """
    packed = path.suffix == ".gz"
    with reading(path), gzip.open(path) if packed else path.open("rb") as file:
        header = file.read(4 + 4 * ndim)
        magic = bytes((0, 0, 8, ndim))  # 8: unsigned bytes
        if header[:4] != magic:
            raise DataError(
                f"{path}: expected an IDX file that begins with {magic.hex()}, found {header[:4].hex() or 'nothing'}; "
                f"is it another file, or packed without .gz in its name?"
            )
        if len(header) < 4 + 4 * ndim:
            raise DataError(f"{path}: the IDX header is cut short at {len(header)} bytes; fetch the file again")
        shape = tuple(np.frombuffer(header, ">u4", offset=4).tolist())
        expected = math.prod(shape)
        if expected == 0:
            raise DataError(f"{path}: expected at least one row, but the header says shape {shape}; use another file")
        size = path.stat().st_size
        body = bytearray()
        if expected <= size * (INFLATION if packed else 1):
            while piece := file.read(min(PIECE, expected + 1 - len(body))):
                body += piece
    if len(body) != expected:
        found = "more" if len(body) > expected else len(body) or f"a file of only {size}"
        raise DataError(f"{path}: shape {shape} asks for {expected} bytes, found {found}; fetch the file again")
    return np.frombuffer(body, np.uint8).reshape(shape)


def read_folder(folder: Path) -> tuple[Pair, Pair, Pair | None]:
    """Read a folder of IDX files under MNIST's names.

    The first 42,000 training images train and the next 12,000 validate; of fewer than 54,000 the first 7/9 train and
    the rest validate. The t10k images test.

    Returns
    -------
    training, validation : (X (N, I) uint8, y (N,) int64)
    test : the same, or None where the folder has no t10k files

    Raises
    ------
    DataError
        A file missing, damaged or lying; images and labels of different count; test images of another size.
    """
    train, test = _read_part(folder, "train"), _read_part(folder, "t10k")
    if train is None:
        raise DataError(
            f"{folder}: expected train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz], found neither"
        )
    X, y = train
    if test is not None and test[0].shape[1] != X.shape[1]:
        raise DataError(f"{folder}: expected test images of {X.shape[1]} pixels like the training ones, "
                        f"found {test[0].shape[1]}; use files of one set")  # fmt: skip
    if len(X) < 2:
        raise DataError(f"{folder}: expected 2 training images or more, to train and to validate, found {len(X)}")
    cut, end = TRAINING, TRAINING + VALIDATION
    if len(X) < end:
        cut, end = len(X) * 7 // 9, len(X)
    return (X[:cut], y[:cut]), (X[cut:end], y[cut:end]), test


def _read_part(folder: Path, part: str) -> Pair | None:
    """X (N, I) uint8 and y (N,) int64 of "train" or "t10k"; None where the folder has neither file."""
    paths = [_find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)]
    if paths == [None, None]:
        return None
    images, labels = paths
    if images is None or labels is None:
        raise DataError(
            f"{folder}: expected both images and labels of {part}, found only {images or labels}; add the other"
        )
    X, y = read_idx(images, 3), read_idx(labels, 1)
    if len(X) != len(y):
        raise DataError(f"{folder}: expected a label for each {part} image, found {len(X)} images and {len(y)} labels; "
                        f"use files of one set")  # fmt: skip
    return X.reshape(len(X), -1), y.astype(np.int64)


def _find(folder: Path, stem: str, ndim: int) -> Path | None:
    """The first of the usual names that is there."""
    names = (f"{stem}{dot}idx{ndim}-ubyte{gz}" for dot in "-." for gz in ("", ".gz"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def fetch_mnist() -> Path:
    """Download MNIST into the user's cache, and return that folder; files already there only have their MD5 checked.

    Raises
    ------
    DataError
        pooch is not installed, there is no network, or a file's MD5 is wrong.
    """
    otherwise = "put MNIST's four IDX files into a folder and pass that folder"
    try:
        import pooch
    except ImportError as error:
        raise DataError(
            f'"mnist" is downloaded by pooch, which is missing: pip install "fastmlp[data]", or {otherwise}'
        ) from error
    folder = Path(pooch.os_cache("fastmlp"))
    for name, md5 in MD5.items():
        try:
            pooch.retrieve(MIRROR + name, known_hash=f"md5:{md5}", fname=name, path=folder)
        except (OSError, ValueError) as error:  # no network; a wrong MD5
            raise DataError(f"could not get {MIRROR}{name}: {error}. Offline? Then {otherwise}") from error
    return folder
