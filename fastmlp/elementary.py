"""The functions that the rules of elements (activations, losses) are written in.

A rule runs in NumPy on arrays and, compiled by Numba, on single numbers. What the two say differently stands here once:
NumPy's way below, Numba's in `fastmlp.backends.elements`.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def like(number: float, z: Any) -> Any:
    """A constant beside z: Python numbers never widen a NumPy array; for Numba it takes the type of z."""
    return number


def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b."""
    return np.where(condition, a, b)


def exp(z: Any) -> Any:
    """e to the power of z."""
    return np.exp(z)


def log(z: Any) -> Any:
    """The natural logarithm of z > 0."""
    return np.log(z)


def tanh(z: Any) -> Any:
    """The hyperbolic tangent."""
    return np.tanh(z)
