"""Losses that are sums over outputs, element by element: of one z and its target y, the loss and dloss/dz.

Cross entropy over a softmax, whose outputs depend on each other, is an operation of its own. c is the output's own
number, for the losses that have one: huber's delta, quantile's share, logistic's ceiling: the most that is reported,
the slope staying what it is, as in scikit-learn, which keeps probabilities from 0; 0 is none. NumPy runs the rules on
arrays, Numba compiles them for single numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastmlp.elementary import exp, like, log, where
from fastmlp.errors import OptionError

SOFTMAX = 0  # the number of cross entropy over a softmax


def logistic(z: Any, y: Any, c: Any) -> tuple[Any, Any]:
    """-y log p - (1 - y) log(1 - p), p = 1 / (1 + exp(-z)), y in 0 .. 1: log(1 + exp(z)) - y z, without overflow."""
    e = exp(-abs(z))  # at most 1
    loss = where(z < 0, like(0, z), z) - y * z + log(like(1, z) + e)
    loss = where((c > 0) & (loss > c), c, loss)
    return loss, where(z < 0, e, like(1, z)) / (like(1, z) + e) - y


def squared_error(z: Any, y: Any, c: Any) -> tuple[Any, Any]:
    """(z - y)^2 / 2."""
    d = z - y
    return like(0.5, z) * d * d, d


def poisson(z: Any, y: Any, c: Any) -> tuple[Any, Any]:
    """Half the Poisson deviance of the mean m = exp(z) from y >= 0: y log(y / m) - y + m."""
    m = exp(z)
    positive = where(y > 0, y, like(1, z))
    return where(y > 0, y * (log(positive) - z), like(0, z)) - y + m, m - y


def absolute_error(z: Any, y: Any, c: Any) -> tuple[Any, Any]:
    """|z - y|; its slope at 0 is taken to be 0."""
    d = z - y
    return abs(d), where(d > 0, like(1, z), where(d < 0, like(-1, z), d))


def huber(z: Any, y: Any, c: Any) -> tuple[Any, Any]:
    """d^2 / 2 up to |d| = c, from there on c (|d| - c / 2), d = z - y. Huber, 1964."""
    d = z - y
    size = abs(d)
    near = where(size > c, c, size)
    return near * (size - like(0.5, z) * near), where(d < 0, -near, where(d > 0, near, d))


def quantile(z: Any, y: Any, c: Any) -> tuple[Any, Any]:
    """The pinball loss, least where a share c of the targets lies below z: max(c d, (c - 1) d), d = y - z."""
    d = y - z
    return where(d < 0, (c - like(1, z)) * d, c * d), where(d < 0, like(1, z) - c, where(d > 0, -c, d))


Loss = Callable[[Any, Any, Any], tuple[Any, Any]]
# The place of a loss here, from 1 on, is the whole number that the operations know it by; SOFTMAX is 0.
ELEMENTWISE: dict[str, Loss] = {
    "logistic": logistic,
    "squared_error": squared_error,
    "poisson": poisson,
    "absolute_error": absolute_error,
    "huber": huber,
    "quantile": quantile,
}
NAMES = ("cross_entropy", *ELEMENTWISE)
RULES = tuple(ELEMENTWISE.values())  # RULES[kind - 1]


def kind_of(name: str) -> int:
    """The number of the loss called `name`. Raises OptionError, listing the names, if there is none."""
    if not isinstance(name, str) or name not in NAMES:
        raise OptionError(f"loss: expected one of {', '.join(NAMES)}; got {name!r}")
    return NAMES.index(name)
