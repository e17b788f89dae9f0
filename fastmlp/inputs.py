"""What enters a network: raw rows and labels, checked, and made into what the backends take.

Everything here happens before training or prediction begins, so that bad input changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from fastmlp.errors import DataError

BLOCK = 2**22  # numbers to check or scale at a time: bounds the memory beside the data


class Inputs(NamedTuple):
    """What a network takes, so that it is given raw rows later as it was in training."""

    features: int  # I
    pixels: bool  # uint8 rows that mean pixels / 255
    mean: np.ndarray | None = None  # (I,) float64: columns are standardised, (x - mean) / deviation
    deviation: np.ndarray | None = None  # (I,) float64, 1 where a column is constant

    def prepare(self, X: Any, dtype: np.dtype, name: str = "X") -> np.ndarray:
        """Raw rows, checked and scaled, for a plan of type `dtype`.

        Returns
        -------
        ndarray (N, I)
            uint8 or `dtype`; X itself where nothing has to change.

        Raises
        ------
        DataError
            X is not two-dimensional and numeric, has no rows or another number of columns, holds a NaN or an infinity
            (the row and column are named), or means something else than the rows of the training did.
        """
        X = as_table(X, name)
        if X.shape[1] != self.features:
            raise DataError(f"{name}: expected {self.features} columns, as in training; got {X.shape[1]}")
        if X.dtype == np.uint8:
            if self.mean is not None:
                raise DataError(
                    f"{name}: expected floating-point columns, which the network standardises; got uint8, which means "
                    f"pixels / 255; pass {name}.astype('float32')"
                )
            return X
        if self.pixels and (X.dtype.kind in "iu" or X.max() > 2):
            raise DataError(
                f"{name}: the network learned from pixels, uint8 or already divided by 255; got {X.dtype} up to "
                f"{X.max()}; pass {name}.astype('uint8') or divide by 255"
            )
        return self.scaled(X, dtype, name)

    def scaled(self, X: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
        """X (N, I) standardised where the network does so, as `dtype`, proved finite."""
        if self.mean is not None and self.deviation is not None:
            out = np.empty(X.shape, dtype)
            for block in blocks(*X.shape):
                out[block] = (X[block] - self.mean) / self.deviation  # (n, I)
        else:
            with np.errstate(over="ignore"):  # too large for dtype becomes infinite, and is refused below
                out = np.asarray(X.astype(dtype, order="C", copy=False))
        check_finite(out, name)
        return out


def learn_inputs(X: np.ndarray, scale: str | None, index: np.ndarray | None = None) -> Inputs:
    """What a network trained on rows `index` (None: all) of X (M, I) takes; `scale` "standard" standardises columns."""
    if scale is None:
        return Inputs(X.shape[1], X.dtype == np.uint8)
    if X.dtype == np.uint8:
        raise DataError(
            "scale='standard' is for floating-point columns; uint8 rows mean pixels / 255 and need no scaling; "
            "pass X.astype('float32') to standardise them"
        )
    check_finite(X, "X")
    index = np.arange(len(X)) if index is None else index  # (N,)
    mean, variance = np.zeros(X.shape[1]), np.zeros(X.shape[1])  # (I,)
    for block in blocks(len(index), X.shape[1]):
        mean += X[index[block]].sum(axis=0, dtype=np.float64) / len(index)
    for block in blocks(len(index), X.shape[1]):  # a second pass: a difference of squares would cancel
        variance += np.square(X[index[block]] - mean).sum(axis=0) / len(index)
    deviation = np.sqrt(variance)
    return Inputs(X.shape[1], False, mean, np.where(deviation > 0, deviation, 1.0))


def check_finite(X: np.ndarray, name: str) -> None:
    """Raises DataError, naming the row and column of the first NaN or infinity in X (N, I)."""
    for block in blocks(*X.shape):
        finite = np.isfinite(X[block])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            raise DataError(
                f"{name}[{block.start + row}, {column}] is {X[block][row, column]}: expected finite {X.dtype} numbers; "
                "fill it in, or drop the row or the column"
            )


def blocks(n: int, columns: int) -> Iterator[slice]:
    """Slices over n rows, each of at most about BLOCK numbers."""
    step = max(1, BLOCK // columns)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def as_table(X: Any, name: str = "X") -> np.ndarray:
    """X as a two-dimensional numeric array with rows and columns; no copy of an array that is one. Raises DataError."""
    array = X if isinstance(X, np.ndarray) else np.asarray(X)
    if array.ndim != 2:
        remedy = f"; pass {name}.reshape(len({name}), -1)" if array.ndim != 0 else ""
        raise DataError(f"{name}: expected a table, rows by columns; got an array of shape {array.shape}{remedy}")
    if not all(array.shape):
        raise DataError(f"{name}: expected at least one row and one column; got shape {array.shape}")
    if array.dtype.kind in "OUS":
        return numbers_from_text(array, name)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers; got {array.dtype}")
    return array


def numbers_from_text(array: np.ndarray, name: str) -> np.ndarray:
    """An array of objects or text (N, I) as float64. Raises DataError, naming the first entry that is no number."""
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        for (row, column), entry in np.ndenumerate(array):
            try:
                float(entry)
            except (TypeError, ValueError):
                raise DataError(
                    f"{name}[{row}, {column}] is {entry!r}: expected a number; encode text columns as numbers first"
                ) from None
        raise


def encode_labels(y: Any, n: int, classes: np.ndarray | None = None, name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Labels as class indices.

    Parameters
    ----------
    y
        (N,) integers, text, booleans or whole floats; or (N, O) one-hot rows, for the classes 0 .. O-1.
    n
        Rows that y must have.
    classes
        (O,), sorted: the classes known from training. None learns them from y.

    Returns
    -------
    codes, classes
        (N,) int32 and (O,).

    Raises
    ------
    DataError
        Another length than n, continuous or missing values, fewer than two classes, or a label not among `classes`.
    """
    y = np.asarray(y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if len(np.atleast_1d(y)) != n:
        raise DataError(f"{name}: expected {n} labels, one a row of X; got {len(np.atleast_1d(y))}")
    if y.ndim == 2:
        classes = np.arange(y.shape[1]) if classes is None else classes  # also those that no row has
        y = from_one_hot(y, name)
    if y.ndim != 1:
        raise DataError(f"{name}: expected one label a row, or one-hot rows; got an array of shape {y.shape}")
    if y.dtype.kind == "O":
        y = plain_labels(y, name)
    if y.dtype.kind == "f" and not np.array_equal(y, np.floor(y)):  # a NaN is not equal to itself
        row = int(np.flatnonzero(y != np.floor(y))[0])
        raise DataError(f"{name}[{row}] is {y[row]}: expected class labels (integers or text), not continuous values")
    if y.dtype.kind not in "biufU":
        raise DataError(f"{name}: expected integers or text; got {y.dtype}")
    if classes is None:
        classes = np.unique(y)
    elif (y.dtype.kind == "U") != (classes.dtype.kind == "U"):
        raise DataError(f"{name}: expected labels like {classes[0]!r}, as in training; got {y[0]!r}")
    if len(classes) < 2:
        raise DataError(f"{name}: expected at least two classes; got only {classes[0]!r}")
    codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)  # (N,)
    unseen = np.flatnonzero(classes[codes] != y)
    if len(unseen):
        shown = ", ".join(str(label) for label in classes[:10]) + (", ..." if len(classes) > 10 else "")
        row = int(unseen[0])
        raise DataError(f"{name}[{row}] is {y[row]!r}: expected one of the classes of the training, {shown}")
    return codes.astype(np.int32), classes


def from_one_hot(y: np.ndarray, name: str) -> np.ndarray:
    """One-hot rows (N, O) as class indices (N,). Raises DataError for rows that are not one-hot."""
    if y.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers in one-hot rows; got {y.dtype}")
    wrong = np.flatnonzero(((y != 0) & (y != 1)).any(axis=1) | (y.sum(axis=1) != 1))
    if len(wrong):
        raise DataError(f"{name}[{wrong[0]}] is {y[wrong[0]]}: expected a one-hot row, a single 1 among zeros")
    return np.asarray(y.argmax(axis=1))


def plain_labels(y: np.ndarray, name: str) -> np.ndarray:
    """An object array of labels (N,), as text or integers if all of them are. Raises DataError for a mixture."""
    if all(isinstance(label, str) for label in y):
        return y.astype(np.str_)
    if all(isinstance(label, int | np.integer) for label in y):
        return y.astype(np.int64)
    odd = next(label for label in y if not isinstance(label, type(y[0])) or not isinstance(label, str | int))
    raise DataError(f"{name}: expected all labels to be text or all to be integers; got {y[0]!r} and {odd!r}")
