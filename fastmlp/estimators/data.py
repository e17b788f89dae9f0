"""The rows of a fit, and which of them are held out to validate on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastmlp.device_arrays import lies_on_gpu
from fastmlp.inputs import as_table, check_finite


class Data(NamedTuple):
    """Checked rows with their targets."""

    X: Any  # (N, I) ndarray, CuPy's, or CSR
    y: Any  # (N,) or (N, O) as they were given
    codes: np.ndarray  # (N,) int32 class codes or (N, O), as the network takes them
    weight: np.ndarray | None  # (N,)


def split_rows(data: Data, fraction: float, stratify: bool, random: np.random.RandomState) -> tuple[np.ndarray, Data]:
    """Hold out a fraction of the rows, drawn as scikit-learn's MLP draws them.

    Returns the rows to train on, as places in `data`, and the rows held out. Raises ValueError if these are fewer than
    two, or a class cannot be split.
    """
    from sklearn.model_selection import train_test_split

    labels = (data.codes.ravel() > 0.5).astype(str) if stratify else None  # (N,); a smoothed 0 is a 0
    train, held_out = train_test_split(
        np.arange(data.X.shape[0]), random_state=random, test_size=fraction, stratify=labels
    )
    if len(held_out) < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    return train, take_rows(data, held_out)


def take_rows(data: Data, index: np.ndarray) -> Data:
    """A copy of some rows. index (n,)."""
    weight = None if data.weight is None else data.weight[index]
    if lies_on_gpu(data.X):
        return Data(data.X.take(index, axis=0), data.y[index], data.codes[index], weight)
    return Data(data.X[index], data.y[index], data.codes[index], weight)


def on_host(X: Any) -> Any:
    """X itself, or where it speaks DLPack, a NumPy array over the same memory; a GPU's array is copied to the host."""
    if isinstance(X, np.ndarray) or not hasattr(X, "__dlpack__"):
        return X
    on_cpu = X.__dlpack_device__()[0] == 1
    return np.from_dlpack(X) if on_cpu else np.from_dlpack(X, device="cpu", copy=True)


def checked_on_gpu(model: Any, X: Any, types: Any, reset: bool) -> Any:
    """Rows X (N, I) that lie on a GPU as CuPy's, of one of the floating `types`; no copy of rows that are so.

    What `sklearn.utils.validation.validate_data` does for rows on the host: raises ValueError for rows that cannot be
    used, and where `reset`, notes the number of columns on the model.
    """
    types = types if isinstance(types, tuple) else (types,)
    X = as_table(X)
    if X.dtype not in types:
        X = X.astype(types[0])
    check_finite(X, "X")
    if reset:
        vars(model).pop("feature_names_in_", None)
        model.n_features_in_ = X.shape[1]
    elif X.shape[1] != model.n_features_in_:
        raise ValueError(
            f"X has {X.shape[1]} features, but {type(model).__name__} is expecting {model.n_features_in_} features as "
            "input"
        )
    return X
