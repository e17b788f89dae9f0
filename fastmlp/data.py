"""Datasets: CSV, NumPy and IDX files, MNIST, and handwritten digits that need no network.

Letters: N rows, I features (pixels). A reader returns a whole `Dataset` or raises `DataError`, nothing between.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from .errors import DataError
from .idx import Pair, fetch_mnist, read_folder, reading

FLOAT32_MOST = float(np.finfo(np.float32).max)


class Dataset(NamedTuple):
    """Rows to learn from, and those set aside where the source itself divides them."""

    name: str  # for reports: "built-in digits", "mnist", a path
    X: np.ndarray  # (N, I) uint8 pixels, float32 from a CSV, or a NumPy file's own numeric type
    y: np.ndarray | None  # (N,) labels, int64 or strings; None where the file has none
    validation: Pair | None = None
    test: Pair | None = None
    columns: tuple[str, ...] | None = None  # names of X's I columns, where the source has them


def digits(seed: int = 0) -> Dataset:
    """Make a dataset of MNIST's size from real handwriting, scikit-learn's 1,797 digits, enlarged and varied.

    Parameters
    ----------
    seed : int
        The same seed gives the same bytes.

    Returns
    -------
    Dataset
        X (42000, 784) uint8, y (42000,) int64 and 12,000 validation rows, made of other images; no test rows.
    """
    from .digits import make_digits

    (X, y), validation = make_digits(seed)
    return Dataset("built-in digits", X, y, validation)


def read(
    source: str | Path | None,
    *,
    target: str | None = None,
    labels: str | Path | None = None,
    labelled: bool = True,
) -> Dataset:
    """Read a dataset.

    Parameters
    ----------
    source : str, Path or None
        None: the built-in digits. "mnist": MNIST, downloaded once. A folder: IDX files under MNIST's names. A file:
        ``.csv`` or ``.csv.gz`` with a header; ``.npz`` with X, y or x_train, y_train, x_test, y_test; ``.npy``, which
        stays on disk as a memory map.
    target : str, optional
        The CSV's label column; "label" if not given.
    labels : str or Path, optional
        The ``.npy`` file of labels that goes with a ``.npy`` source.
    labelled : bool
        False for rows to predict: the labels of a file may be missing.

    Returns
    -------
    Dataset
        X (N, I): uint8 where an IDX or CSV file holds only whole numbers 0 to 255, else float32 from a CSV; images
        (N, rows, columns) are flattened. y (N,): int64, or strings where not all are integers.

    Raises
    ------
    DataError
        The source is missing, of an unknown kind, damaged, or holds anything but what is described here.
    """
    path = None if source is None or source == "mnist" else Path(source).expanduser()
    kind = None if path is None else _kind(path)
    for name, value, its_kind in (("target", target, ".csv"), ("labels", labels, ".npy")):
        if value is not None and kind != its_kind:
            raise DataError(
                f"{name}={str(value)!r} goes with a {its_kind} file, but the source is {source}; leave it out"
            )
    if source is None:
        return digits()
    if path is None or kind == "folder":
        (X, y), validation, test = read_folder(path or fetch_mnist())
        return Dataset(str(source), X, y, validation, test)
    if kind == ".csv":
        with reading(path):
            return _read_csv(path, "label" if target is None else target, labelled)
    if kind == ".npz":
        return _read_npz(path, labelled)
    return _read_npy(path, None if labels is None else Path(labels).expanduser(), labelled)


def _kind(path: Path) -> str:
    """Return "folder", ".csv", ".npz" or ".npy"; refuse anything else."""
    if path.is_dir():
        return "folder"
    if not path.exists():
        raise DataError(f"{path}: expected a file or folder, found none; check the path")
    for suffix, kind in {".csv": ".csv", ".csv.gz": ".csv", ".npz": ".npz", ".npy": ".npy"}.items():
        if path.name.lower().endswith(suffix):
            return kind
    raise DataError(f"{path}: expected .csv, .csv.gz, .npz, .npy or a folder of IDX files, "
                    f"found {path.suffix or 'no suffix'}; convert the file")  # fmt: skip


# --- CSV ---


def _read_csv(path: Path, target: str, labelled: bool) -> Dataset:
    """Read with NumPy's C parser; only where that fails, look for the cell to name."""
    with _text(path) as file:
        names = _header(file)
        empty = not any(line.strip() for line in file)
    label = _label_column(path, names, target, labelled)
    if empty or (len(names) == 1 and label == 0):
        raise DataError(f"{path}: expected rows of features below the header, found none; add rows or columns")
    for dtype in ("u1", "f4"):  # pixels first: they parse eight times as fast as floats
        with suppress(ValueError):
            cells, texts = _parse(path, dtype, label)
            if cells.shape[1] == len(names) and np.isfinite(cells).all() and all(map(_is_label, set(texts))):
                break
    else:
        raise _fault(path, names, label)
    X = cells if label is None else np.delete(cells, label, axis=1)
    if X.dtype != np.uint8 and X.min() >= 0 and X.max() <= 255 and (np.rint(X) == X).all():
        X = X.astype(np.uint8)  # pixels written as 0.0 to 255.0
    features = tuple(name for column, name in enumerate(names) if column != label)
    return Dataset(str(path), X, None if label is None else _labels(texts), columns=features)


def _text(path: Path) -> TextIO:
    """Open as UTF-8, with or without a byte order mark; the csv module wants line ends left alone."""
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _header(file: TextIO) -> list[str]:
    """Return the names of the columns; the file is left at the line below them."""
    return [name.strip() for name in next(csv.reader(file), [])]


def _label_column(path: Path, names: list[str], target: str, labelled: bool) -> int | None:
    """Return where the label stands among the columns; None where it does not and need not."""
    if not names:
        raise DataError(f"{path}: expected a first line with the names of the columns, found it empty; add one")
    if twice := {name for name in names if names.count(name) > 1}:
        raise DataError(f"{path}: expected a first line that names each column differently, found {min(twice)!r} twice"
                        f"; rename one, or add a header where there is none")  # fmt: skip
    if target in names:
        return names.index(target)
    if labelled:
        known = ", ".join(names[:10]) + (f", ... ({len(names)} in all)" if len(names) > 10 else "")
        raise DataError(f"{path}: expected a label column {target!r}, found {known}; name the column with --target")
    return None


def _parse(path: Path, dtype: str, label: int | None) -> tuple[np.ndarray, list[str]]:
    """Return all cells (N, columns) and, apart, the labels' texts (N), whose cells are 0; ValueError on a fault."""
    texts: list[str] = []

    def keep(text: str) -> int:
        texts.append(text.strip())
        return 0

    converters: dict[int | str, Callable[[str], int]] = {} if label is None else {label: keep}
    with _text(path) as file:
        _header(file)
        cells = np.loadtxt(file, dtype, comments=None, delimiter=",", converters=converters, ndmin=2, quotechar='"')
    return cells, texts


def _fault(path: Path, names: list[str], label: int | None) -> DataError:
    """Walk the file slowly to the first line or cell that is wrong, and name it."""
    with _text(path) as file:
        reader = csv.reader(file)
        next(reader)
        for row in filter(None, reader):
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(names):
                return DataError(f"{where}: expected {len(names)} fields, as in the header, found {len(row)}; mend it")
            for column, cell in enumerate(row):
                if not (_is_label(cell) if column == label else _is_number(cell)):
                    wanted = "a label" if column == label else "a finite number"
                    found = repr(cell[:40]) if cell.strip() else "an empty cell"
                    return DataError(f"{where}, column {names[column]!r}: expected {wanted}, found {found}; "
                                     f"mend the cell, or leave out the line or column")  # fmt: skip
    return DataError(f"{path}: expected rows of numbers, found something NumPy cannot parse; write the file anew")


@lru_cache(4096)  # pixels repeat: four times as fast
def _is_number(cell: str) -> bool:
    """Whether float32 can hold it; float() alone would also take 1_000, other scripts' digits, nan and inf."""
    with suppress(ValueError):
        return cell.isascii() and "_" not in cell and abs(float(cell)) <= FLOAT32_MOST
    return False


def _is_label(cell: str) -> bool:
    return cell.strip().lower() not in {"", "nan", "inf", "-inf"}


def _labels(texts: list[str]) -> np.ndarray:
    """Return int64 (N,) where every text is an integer as Python writes it ("007" is not), else strings (N,)."""
    with suppress(ValueError):
        number = {text: int(text) for text in set(texts)}
        if all(str(n) == text and -(2**63) <= n < 2**63 for text, n in number.items()):
            return np.array([number[text] for text in texts], np.int64)
    return np.array(texts)


# --- NumPy files ---


def _read_npz(path: Path, labelled: bool) -> Dataset:
    """Read X, y or x_train, y_train, x_test, y_test, and no other array."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = ", ".join(archive.files) or "no arrays"
            wanted = ("X", "y", "", "") if "X" in archive else ("x_train", "y_train", "x_test", "y_test")
            X, y, x_test, y_test = (archive.get(name) for name in wanted)
    except Exception as error:  # on a damaged file zipfile, zlib and numpy.lib.format raise a dozen kinds
        raise _unreadable(path, error) from error
    if X is None or (y is None and labelled) or (x_test is None) != (y_test is None):
        raise DataError(f"{path}: expected arrays X, y or x_train, y_train, with x_test, y_test both or neither, "
                        f"found {found}; rename or add arrays")  # fmt: skip
    X = _flat(path, X)
    y = None if y is None else _classes(path, y, len(X))
    if x_test is None or y_test is None:
        return Dataset(str(path), X, y)
    x_test, y_test = _flat(path, x_test), _classes(path, y_test, len(x_test))
    if x_test.shape[1] != X.shape[1]:
        raise DataError(
            f"{path}: expected x_test of {X.shape[1]} features, found {x_test.shape[1]}; use arrays of one set"
        )
    return Dataset(str(path), X, y, None, (x_test, y_test))


def _read_npy(path: Path, labels: Path | None, labelled: bool) -> Dataset:
    """Map X from the disk; y, in a second file, is loaded."""
    if labels is None and labelled:
        raise DataError(f"{path}: a .npy file of rows holds no labels; pass labels=, a .npy file with one for each row")
    if labels is not None and _kind(labels) != ".npy":
        raise DataError(f"{labels}: expected labels in a .npy file; save them with numpy.save")
    X = _flat(path, _map(path))
    return Dataset(str(path), X, None if labels is None else _classes(labels, np.array(_map(labels)), len(X)))


def _map(path: Path) -> np.ndarray:
    """Open a .npy file without loading it; mapping refuses a header that promises more than the file holds."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: expected a whole NumPy file without pickled objects, but: {error}; save it anew")


def _flat(path: Path, X: np.ndarray) -> np.ndarray:
    """Return X (N, ...) as (N, I), a view."""
    if X.ndim < 2 or X.size == 0 or X.dtype.kind not in "buif":
        raise DataError(f"{path}: expected features as real numbers of shape (rows, features), "
                        f"found {X.dtype} of shape {X.shape}; reshape or convert them")  # fmt: skip
    return X.reshape(len(X), -1)


def _classes(path: Path, y: np.ndarray, rows: int) -> np.ndarray:
    """Return labels (N,) or (N, 1) as (N,) int64 or strings."""
    if y.shape not in ((rows,), (rows, 1)):
        raise DataError(
            f"{path}: expected one label for each of {rows} rows, found labels of shape {y.shape}; mend them"
        )
    if y.dtype.kind in "buif":
        with np.errstate(invalid="ignore"):  # NaN: refused below
            whole = y.astype(np.int64)
        if (whole == y).all():
            return whole.reshape(-1)
    elif y.dtype.kind == "U":
        return y.reshape(-1)
    raise DataError(f"{path}: expected whole numbers or strings as labels, found {y.dtype}; convert them")
