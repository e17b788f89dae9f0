"""The data of a training, checked and made ready once, however many trainings share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastmlp.backends.base import Backend, Rows
from fastmlp.errors import DataError, OptionError
from fastmlp.inputs import Inputs, as_table, column_names, learn_inputs
from fastmlp.labels import encode_labels
from fastmlp.options import Options


class Source:
    """Rows X (M, I) with labels y (M,), as a user gave them; None for both are the built-in digits.

    Raises DataError if they cannot be used.
    """

    def __init__(self, X: Any, y: Any):
        self.own_validation: Any = None
        if X is None:
            if y is not None:
                raise DataError("y: expected no labels without X; pass both, or neither for the built-in digits")
            from fastmlp.data import digits

            data = digits()
            X, y, self.own_validation = data.X, data.y, data.validation
        self.X = as_table(X)
        self.columns = column_names(X)
        self.codes, self.classes = encode_labels(y, len(self.X))  # (M,), (O,)
        self._made: dict[Any, Any] = {}

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all who ask by the same key."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def split(self, options: Options) -> tuple[np.ndarray, np.ndarray] | None:
        """Rows to train on and rows to hold out, where a fraction of them validates."""
        fraction = options.validation
        if not isinstance(fraction, int | float | np.number) or isinstance(fraction, bool):
            return None
        key = "split", float(fraction), int(options.seed)
        parts: tuple[np.ndarray, np.ndarray] = self.once(key, lambda: split(self.codes, key[1], key[2]))
        return parts

    def scaling(self, options: Options) -> tuple[Any, ...]:
        """What the scaling of the columns hangs on: trainings where it is the same share one X."""
        if options.scale is None or self.split(options) is None:
            return (options.scale,)
        return options.scale, float(options.validation), int(options.seed)

    def inputs(self, options: Options) -> Inputs:
        """What the network takes, learned from the rows to train on."""
        parts = self.split(options)
        train = None if parts is None else parts[0]
        made: Inputs = self.once(self.scaling(options), lambda: learn_inputs(self.X, options.scale, train))
        return made._replace(columns=self.columns)

    def rows(self, options: Options, backend: Backend, dtype: np.dtype) -> tuple[Rows, Rows | None]:
        """Rows of `dtype` to train on, and to validate on, where the backend computes. Raises as `fastmlp.train`."""
        parts, inputs = self.split(options), self.inputs(options)
        scaling, given = (dtype, *self.scaling(options)), options.validation

        def put(key: Any, make: Callable[[], np.ndarray]) -> Any:
            return self.once((backend, *key), lambda: backend.asarray(make()))

        rows = Rows(put(("X", *scaling), lambda: inputs.prepare(self.X, dtype)), put(("y",), lambda: self.codes))
        if parts is not None:
            return replace(rows, index=parts[0]), replace(rows, index=parts[1])
        given = self.own_validation if given is None else given
        if given is None:
            return rows, None
        if not isinstance(given, tuple | list) or len(given) != 2:
            shown = given if isinstance(given, bool | str) else type(given).__name__
            raise OptionError(f"validation: expected a fraction between 0 and 1, or a pair (X, y); got {shown}")
        Xv, yv = given
        held_out = put(("validation X", id(Xv), *scaling), lambda: inputs.prepare(Xv, dtype, "validation X"))
        codes = put(
            ("validation y", id(yv), len(held_out)),
            lambda: encode_labels(yv, len(held_out), self.classes, "validation y")[0],
        )
        return rows, Rows(held_out, codes)


def split(codes: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows to train on and rows to hold out, each class in its share. codes (N,) -> two sorted index arrays."""
    if not 0 < fraction < 1:
        raise OptionError(f"validation: expected a fraction between 0 and 1, or a pair (X, y); got {fraction}")
    from sklearn.model_selection import train_test_split

    try:
        train, held_out = train_test_split(np.arange(len(codes)), test_size=fraction, stratify=codes, random_state=seed)
    except ValueError as error:
        raise DataError(
            f"validation={fraction}: the rows cannot be split so that every class has its share: {error}"
        ) from error
    return np.sort(train), np.sort(held_out)
