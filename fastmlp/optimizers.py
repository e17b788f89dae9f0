"""Update rules: how a gradient moves the parameters.

A rule is one function of elements. `i` picks them: a slice under NumPy, one index inside a loop that Numba
compiles; the CUDA kernels are tested against the same function. Letters::

    w  (P,)    parameters        s  (S, P)  state, zero at the start
    g  (P,)    gradient          i          slice or index into P
    h          the step's numbers, a `Step`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmlp.errors import OptionError

BETA2 = 0.999  # Adam: decay of the mean of squares
EPSILON = 1e-8  # Adam: keeps the division finite


class Step(NamedTuple):
    """The numbers of one step, scalars of the parameters' type: a float64 among them would widen the arithmetic."""

    rate: Any  # the learning rate; Adam's bias correction is folded in
    beta: Any  # decay of the mean of gradients
    rest: Any  # 1 - beta
    beta2: Any  # Adam: decay of the mean of squares
    rest2: Any  # 1 - beta2
    epsilon: Any  # Adam: keeps the division finite


def sgd(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """w -= rate g: gradient descent. Keeps no state."""
    w[i] -= h.rate * g[i]


def momentum(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """v = beta v + (1 - beta) g; w -= rate v: the notes' rule. With beta = 0 it is gradient descent."""
    s[0][i] = h.beta * s[0][i] + h.rest * g[i]
    w[i] -= h.rate * s[0][i]


def nesterov(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """v = beta v + (1 - beta) g; w -= rate (beta v + (1 - beta) g): momentum that looks one step ahead.

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, in the averaged form.
    """
    s[0][i] = h.beta * s[0][i] + h.rest * g[i]
    w[i] -= h.rate * (h.beta * s[0][i] + h.rest * g[i])


def adam(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """m = beta m + (1 - beta) g; q = beta2 q + (1 - beta2) g^2; w -= rate m / (sqrt(q) + epsilon).

    Kingma and Ba, "Adam", 2015, with the bias correction folded into the rate (the end of their section 2).
    """
    s[0][i] = h.beta * s[0][i] + h.rest * g[i]
    s[1][i] = h.beta2 * s[1][i] + h.rest2 * (g[i] * g[i])
    w[i] -= h.rate * s[0][i] / (np.sqrt(s[1][i]) + h.epsilon)


class Optimizer(NamedTuple):
    """A rule with what it needs around it."""

    rule: Callable[..., None]
    states: int  # S, arrays of state as large as the parameters
    learning_rate: float  # a start that suits batches of about a hundred rows


OPTIMIZERS = {
    "sgd": Optimizer(sgd, 0, 0.5),
    "momentum": Optimizer(momentum, 1, 0.5),
    "nesterov": Optimizer(nesterov, 1, 0.5),
    "adam": Optimizer(adam, 2, 1e-3),
}


def find(name: str) -> Optimizer:
    """The optimizer called `name`. Raises OptionError, listing the names, if there is none."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise OptionError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}; got {name!r}")
    return OPTIMIZERS[name]


def step_rates(rule: Callable[..., None], learning_rate: float, beta: float, t: Any) -> Any:
    """The rate of step `t`, or of each step of an array, counted from 1: Adam's carries the bias correction."""
    if rule is not adam:
        return learning_rate + np.zeros_like(t, np.float64)
    return learning_rate * np.sqrt(1 - BETA2**t) / (1 - beta**t)


def step_scalars(rule: Callable[..., None], learning_rate: float, beta: float, t: int, dtype: np.dtype) -> Step:
    """The numbers of step `t`, counted from 1, as scalars of `dtype`."""
    rate = step_rates(rule, learning_rate, beta, t)
    return Step(*(dtype.type(number) for number in (rate, beta, 1 - beta, BETA2, 1 - BETA2, EPSILON)))
