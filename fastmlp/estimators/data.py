"""The rows of a fit, and which of them are held out to validate on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Data(NamedTuple):
    """Checked rows with their targets."""

    X: Any  # (N, I) ndarray or CSR
    y: Any  # (N,) or (N, O) as they were given
    codes: np.ndarray  # (N,) int32 class codes or (N, O), as the network takes them
    weight: np.ndarray | None  # (N,)


def split_rows(data: Data, fraction: float, stratify: bool, random: np.random.RandomState) -> tuple[np.ndarray, Data]:
    """Hold out a fraction of the rows, drawn as scikit-learn's MLP draws them.

    Returns the rows to train on, as places in `data`, and the rows held out. Raises ValueError if these are fewer than
    two, or a class cannot be split.
    """
    from sklearn.model_selection import train_test_split

    train, held_out = train_test_split(
        np.arange(data.X.shape[0]), random_state=random, test_size=fraction,
        stratify=data.codes.ravel().astype(bool).astype(str) if stratify else None,
    )  # fmt: skip
    if len(held_out) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return train, take_rows(data, held_out)


def take_rows(data: Data, index: np.ndarray) -> Data:
    """A copy of some rows. index (n,)."""
    weight = None if data.weight is None else data.weight[index]
    return Data(data.X[index], data.y[index], data.codes[index], weight)


def on_host(X: Any) -> Any:
    """X itself, or where it speaks DLPack, a NumPy array over the same memory; a GPU's array is copied to the host."""
    if isinstance(X, np.ndarray) or not hasattr(X, "__dlpack__"):
        return X
    copied = {} if X.__dlpack_device__()[0] == 1 else {"device": "cpu", "copy": True}
    return np.from_dlpack(X, **copied)
