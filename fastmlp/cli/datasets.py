"""The data of a command: read, and the parts of them that it works on."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastmlp.data import Dataset, read
from fastmlp.errors import OptionError
from fastmlp.inputs import as_table, learn_inputs
from fastmlp.labels import encode_labels
from fastmlp.progress import clean, working

HELD_OUT = 0.2  # of the rows, for validation, where the data have no part for it


def load_data(source: str | None, **options: Any) -> Dataset:
    """`fastmlp.data.read`, with a spinner on a terminal."""
    with working(f"reading {'the built-in digits' if source is None else clean(source)}"):
        return read(source, **options)


def parse_scale(text: str | None, data: Dataset) -> str | None:
    """What `train` takes: columns of numbers are standardised unless "none" is asked for, pixels only on demand."""
    if text not in (None, "standard", "none"):
        raise OptionError(f"--scale: expected standard or none; got {text!r}")
    if text is None:
        return None if data.X.dtype == np.uint8 else "standard"
    return None if text == "none" else text


def validation_part(fraction: float | None, data: Dataset) -> Any:
    """What `train` takes: the data's own part or HELD_OUT of the rows unless a fraction is asked for; 0 is none."""
    if fraction is None:
        return HELD_OUT if data.validation is None else data.validation
    return fraction or None


def check_test(data: Dataset, scale: str | None) -> None:
    """Refuse, before long training, a test part that the trained network could not be measured on."""
    if data.test is not None:
        X, y = data.test
        classes = encode_labels(data.y, len(data.X))[1]
        encode_labels(y, len(X), classes, "test y")
        learn_inputs(as_table(data.X), scale).prepare(X, np.dtype(np.float32), "test X")


def measured_part(data: Dataset) -> tuple[str, np.ndarray, np.ndarray | None]:
    """The rows to predict or to evaluate on, and what they are: the test part, else all rows."""
    if data.test is not None:
        return "test rows", *data.test
    if data.validation is not None and data.y is not None:
        (X, y), (Xv, yv) = (data.X, data.y), data.validation
        return "all rows", np.concatenate([X, Xv]), np.concatenate([y, yv])
    return "all rows", data.X, data.y
