"""What the value of an option can be."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastmlp.errors import OptionError


def whole(value: Any, least: int) -> bool:
    """Whether `value` is a whole number from `least` on."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)


def real(value: Any) -> bool:
    """Whether `value` is a finite number that float64 can hold."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of more than 308 digits
        return False


def share(value: Any) -> bool:
    """Whether `value` is a number from 0 to below 1."""
    return real(value) and bool(0 <= value < 1)


def threads_possible(value: Any) -> bool:
    """Whether `value` can be a number of threads: a whole number from 1, or None."""
    return value is None or whole(value, 1)


def check_threads(value: Any) -> None:
    """Raises OptionError unless `value` can be a number of threads."""
    if not threads_possible(value):
        raise OptionError(f"threads: expected a whole number from 1, or None; got {value!r}")
