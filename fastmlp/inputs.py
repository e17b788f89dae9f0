"""What enters a network: raw rows, checked, and made into what the backends take.

Everything here happens before training or prediction begins, so that bad input changes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fastmlp.device_arrays import in_place, lies_on_gpu
from fastmlp.errors import DataError

BLOCK = 2**22  # numbers to check or scale at a time: bounds the memory beside the data


class Inputs(NamedTuple):
    """What a network takes, so that it is given raw rows later as it was in training."""

    features: int  # I
    pixels: bool  # uint8 rows that mean pixels / 255
    mean: np.ndarray | None = None  # (I,) float64: columns are standardised, (x - mean) / deviation
    deviation: np.ndarray | None = None  # (I,) float64, 1 where a column is constant
    columns: tuple[str, ...] | None = None  # names of the I columns, where the rows of the training had them

    def prepare(self, X: Any, dtype: np.dtype, name: str = "X") -> Any:
        """Raw rows, checked and scaled, for a plan of type `dtype`.

        Returns
        -------
        ndarray (N, I)
            uint8 or `dtype`; X itself where nothing has to change. CuPy's, on the GPU, where X lies there.

        Raises
        ------
        DataError
            X is not two-dimensional and numeric, has no rows, another number of columns or other names of them, holds
            a NaN or an infinity (the row and column are named), or means something else than the rows of the training.
        """
        self.check_columns(column_names(X), name)
        X = as_table(X, name)
        if X.shape[1] != self.features:
            raise DataError(
                f"{name}: expected {self.features} columns, as in training; got {X.shape[1]}; "
                "pass the same ones, in the same order"
            )
        if X.dtype == np.uint8:
            if not self.pixels:
                raise DataError(
                    f"{name}: expected numbers such as the network learned from or standardises; got uint8, that is "
                    f"pixels / 255; pass {name}.astype('float32') if they are no pixels, {name} / 255 if they are"
                )
            return X
        if self.pixels and (X.dtype.kind in "iu" or X.max() > 2):
            raise DataError(
                f"{name}: the network learned from pixels, uint8 or already divided by 255; got {X.dtype} up to "
                f"{X.max()}; pass {name}.astype('uint8') or divide by 255"
            )
        return self.scaled(X, dtype, name)

    def check_columns(self, columns: tuple[str, ...] | None, name: str) -> None:
        """Raises DataError if columns have other names than in training, or another order; None has no names."""
        if self.columns is None or columns is None or columns == self.columns:
            return
        expected = f"{name}: expected the columns of the training in their order, {listed(self.columns)}"
        known, given = Counter(self.columns), Counter(columns)
        if known == given:
            place = next(i for i, (a, b) in enumerate(zip(self.columns, columns, strict=True)) if a != b)
            raise DataError(
                f"{expected}; got the same ones in another order: column {place} is {columns[place]!r}, not "
                f"{self.columns[place]!r}; reorder them"
            )
        missing, extra = tuple((known - given).elements()), tuple((given - known).elements())
        got = [f"{word} {listed(names)}" for word, names in (("without", missing), ("with", extra)) if names]
        to_do = [f"{word} {listed(names)}" for word, names in (("add", missing), ("leave out", extra)) if names]
        raise DataError(f"{expected}; got columns {' and '.join(got)}; {' and '.join(to_do)}")

    def scaled(self, X: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
        """X (N, I) standardised where the network does so, as `dtype`, proved finite."""
        if self.mean is not None and self.deviation is not None:
            refuse_scaling_on_gpu(X, name)
            out = np.empty(X.shape, dtype)
            for block in blocks(*X.shape):
                out[block] = (X[block] - self.mean) / self.deviation  # (n, I)
        else:
            with np.errstate(over="ignore"):  # too large for dtype becomes infinite, and is refused below
                out = X.astype(dtype, order="C", copy=False)
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
    refuse_scaling_on_gpu(X, "X")
    check_finite(X, "X")
    if max(float(X.max()), -float(X.min())) > 1e150:
        raise DataError(
            "scale='standard': expected numbers whose squares are finite, below 1e150; scale the columns first"
        )
    index = np.arange(len(X)) if index is None else index  # (N,)
    mean, variance = np.zeros(X.shape[1]), np.zeros(X.shape[1])  # (I,)
    for block in blocks(len(index), X.shape[1]):
        mean += X[index[block]].sum(axis=0, dtype=np.float64) / len(index)
    for block in blocks(len(index), X.shape[1]):  # a second pass: a difference of squares would cancel
        variance += np.square(X[index[block]] - mean).sum(axis=0) / len(index)
    # A constant column leaves the rounding of its mean as a deviation; it is not to be blown up to 1.
    rounding = np.finfo(np.float64).eps * len(index)
    constant = variance <= rounding * variance + (rounding * mean) ** 2
    return Inputs(X.shape[1], False, mean, np.where(constant, 1.0, np.sqrt(variance)))


def column_names(X: Any) -> tuple[str, ...] | None:
    """The names of the columns of a DataFrame, pandas's, polars's or another's; None unless all are strings."""
    columns = getattr(X, "columns", None)
    names = tuple(columns) if isinstance(columns, Iterable) else ()
    return tuple(map(str, names)) if names and all(isinstance(name, str) for name in names) else None


def listed(names: tuple[str, ...], most: int = 10) -> str:
    """Names for a message, the first of them where they are many."""
    return ", ".join(map(repr, names[:most])) + (f", ... ({len(names)} in all)" if len(names) > most else "")


def check_finite(X: np.ndarray, name: str) -> None:
    """Raises DataError, naming the row and column of the first NaN or infinity in X (N, I)."""
    for block in blocks(*X.shape):
        finite = np.isfinite(X[block])
        if not finite.all():
            finite = finite.get() if lies_on_gpu(finite) else finite
            row, column = np.argwhere(~finite)[0]
            raise DataError(
                f"{name}[{block.start + row}, {column}] is {X[block][row, column]}: expected finite {X.dtype} numbers; "
                "fill it in, or drop the row or the column"
            )


def refuse_scaling_on_gpu(X: Any, name: str) -> None:
    """Raises DataError if X lies on a GPU: columns are standardised on the host, with float64 sums."""
    if lies_on_gpu(X):
        raise DataError(
            f"scale='standard': expected {name} in the host's memory; got an array on a GPU; scale it there"
        )


def blocks(n: int, columns: int) -> Iterator[slice]:
    """Slices over n rows, each of at most about BLOCK numbers."""
    step = max(1, BLOCK // columns)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def as_table(X: Any, name: str = "X") -> Any:
    """X as a two-dimensional numeric array with rows and columns; no copy of an array that is one. Raises DataError."""
    array = as_array(X, name)
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


def as_array(values: Any, name: str) -> Any:
    """`values` as a NumPy array, itself if it is one; as CuPy's if it lies on a GPU.

    Raises DataError for ragged lists, masked arrays and sparse matrices.
    """
    if lies_on_gpu(values):
        return in_place(values, name)
    if hasattr(values, "toarray"):
        raise DataError(f"{name}: expected an array; got a sparse matrix; pass {name}.toarray(), or use MLPClassifier")
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(f"{name}: expected an array without a mask; fill the masked entries with {name}.filled(...)")
    try:
        return np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name}: expected rows of one length; got rows that differ ({error})") from error


def numbers_from_text(array: np.ndarray, name: str) -> np.ndarray:
    """An array of objects or text (N, I) as float64. Raises DataError, naming the first entry that is no number."""
    unusable = (TypeError, ValueError, OverflowError)
    try:
        return array.astype(np.float64)
    except unusable:
        for (row, column), entry in np.ndenumerate(array):
            try:
                float(entry)
            except unusable:
                shown = f"{entry!r:.60}"
                raise DataError(
                    f"{name}[{row}, {column}] is {shown}: expected a number; encode text columns as numbers first"
                ) from None
        raise
