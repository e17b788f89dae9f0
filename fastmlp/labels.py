"""Labels of every kind, checked, and made into class indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.device_arrays import in_place, lies_on_gpu
from fastmlp.errors import DataError
from fastmlp.inputs import as_array


def encode_labels(y: Any, n: int, classes: np.ndarray | None = None, name: str = "y") -> tuple[np.ndarray, np.ndarray]:
    """Labels as class indices.

    Parameters
    ----------
    y
        (N,) integers, text, booleans or whole floats; or (N, O) one-hot rows, a column a class.
    n
        Rows that y must have.
    classes
        (O,), sorted: the classes known from training. None learns them from y; one-hot rows are the classes 0 .. O-1.

    Returns
    -------
    codes, classes
        (N,) int32 and (O,).

    Raises
    ------
    DataError
        Another length than n, continuous or missing values, fewer than two classes, or a label not among `classes`.
    """
    if lies_on_gpu(y):
        y = in_place(y, name).get()
    y = as_array(y, name) if isinstance(y, np.ndarray) else plain_labels(y, name)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 0 or len(y) != n:
        raise DataError(f"{name}: expected {n} labels, one a row of X; got {len(y) if y.ndim else y[()]}")
    if y.ndim == 2:
        codes = from_one_hot(y, name)
        classes = np.arange(y.shape[1]) if classes is None else classes
        if y.shape[1] != len(classes):
            raise DataError(f"{name}: expected {len(classes)} columns, one a class; got one-hot rows of {y.shape[1]}")
        return codes, classes
    if y.ndim != 1:
        raise DataError(f"{name}: expected one label a row, or one-hot rows; got an array of shape {y.shape}")
    if y.dtype.kind == "O":
        y = plain_labels(y, name)
    check_labels(y, name)
    if y.dtype.kind == "f" and y.dtype.itemsize > 8:  # a long double: model files cannot hold it
        y = y.astype(np.float64)
    if classes is None:
        classes = np.unique(y)
    elif (y.dtype.kind == "U") != (classes.dtype.kind == "U"):
        raise DataError(
            f"{name}: expected labels like {shown(classes[0])}, as in training; got {shown(y[0])}; pass such"
        )
    if len(classes) < 2:
        raise DataError(
            f"{name}: expected at least two classes; got only {shown(classes[0])}; add rows of another class"
        )
    codes = np.minimum(np.searchsorted(classes, y), len(classes) - 1)  # (N,)
    unseen = np.flatnonzero(classes[codes] != y)
    if len(unseen):
        known = ", ".join(str(label) for label in classes[:10]) + (", ..." if len(classes) > 10 else "")
        row = int(unseen[0])
        raise DataError(
            f"{name}[{row}] is {shown(y[row])}: expected one of the classes of the training, {known}; "
            "drop the row, or train with such rows"
        )
    return codes.astype(np.int32), classes


def shown(label: Any) -> str:
    """A label as Python writes it, without NumPy's type around it."""
    return repr(label.item() if isinstance(label, np.generic) else label)


def check_labels(y: np.ndarray, name: str) -> None:
    """Raises DataError unless y (N,) holds integers, booleans, text or whole finite floats."""
    if y.dtype.kind not in "biufU":
        raise DataError(f"{name}: expected integers or text; got {y.dtype}")
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (y == np.floor(y))  # (N,)
        if not whole.all():
            row = int(np.flatnonzero(~whole)[0])
            raise DataError(
                f"{name}[{row}] is {y[row]}: expected class labels (integers or text), not continuous values"
            )


def from_one_hot(y: np.ndarray, name: str) -> np.ndarray:
    """One-hot rows (N, O) as class indices (N,) int32. Raises DataError for rows that are not one-hot."""
    if y.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers in one-hot rows; got {y.dtype}")
    wrong = np.flatnonzero(((y != 0) & (y != 1)).any(axis=1) | (y.sum(axis=1) != 1))
    if len(wrong):
        raise DataError(f"{name}[{wrong[0]}] is {y[wrong[0]]}: expected a one-hot row, a single 1 among zeros")
    return np.asarray(y.argmax(axis=1), np.int32)


def plain_labels(y: Any, name: str) -> np.ndarray:
    """Labels that are Python objects as an array of text or of numbers. Raises DataError for a mixture.

    NumPy would make text of a number among text, and of a missing value.
    """
    array: np.ndarray = as_array(y, name)
    if array.ndim != 1 or array.dtype.kind not in "OU":
        return array
    labels = list(y)
    if all(isinstance(label, str) for label in labels):
        return array.astype(np.str_)
    if all(isinstance(label, int | np.integer) for label in labels):
        try:
            return np.array(labels, np.int64)
        except OverflowError as error:
            raise DataError(f"{name}: expected labels within 64 bits; got a larger integer") from error
    strange = [label for label in labels if not isinstance(label, str | int | np.integer)]
    odd = strange or [label for label in labels if isinstance(label, str) != isinstance(labels[0], str)]
    raise DataError(f"{name}: expected all labels to be text or all to be integers; got {labels[0]!r} and {odd[0]!r}")
