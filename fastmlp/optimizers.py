"""Update rules: how a gradient moves the parameters.

A rule is one function of elements. `i` picks them: a slice under NumPy, one index inside a loop that Numba
compiles; the CUDA kernels are tested against the same function. Letters::

    w  (P,)    parameters        s  (S, P)  state, zero at the start
    g  (P,)    gradient          i          slice or index into P
    h          the step's numbers, a `Step`

Every rule takes the gradient with the L2 penalty's, g + l2 w.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastmlp.errors import OptionError


class Step(NamedTuple):
    """The numbers of one step, scalars of the parameters' type: a float64 among them would widen the arithmetic."""

    rate: Any  # the learning rate; Adam's bias correction is folded in
    l2: Any  # the L2 penalty's factor over the rows of the batch; 0 for biases
    shrink: Any  # AdamW: learning rate times weight decay; 0 for biases
    beta: Any  # decay of the mean of gradients
    rest: Any  # 1 - beta
    beta2: Any  # Adam: decay of the mean of squares
    rest2: Any  # 1 - beta2
    epsilon: Any  # Adam: keeps the division finite


def sgd(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """w -= rate g: gradient descent. Keeps no state."""
    w[i] -= h.rate * (g[i] + h.l2 * w[i])


def momentum(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """v = beta v + (1 - beta) g; w -= rate v: the notes' rule. With beta = 0 it is gradient descent."""
    s[0][i] = h.beta * s[0][i] + h.rest * (g[i] + h.l2 * w[i])
    w[i] -= h.rate * s[0][i]


def nesterov(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """v = beta v + (1 - beta) g; w -= rate (beta v + (1 - beta) g): momentum that looks one step ahead.

    Sutskever et al., "On the importance of initialization and momentum in deep learning", 2013, in the averaged form.
    """
    d = g[i] + h.l2 * w[i]
    s[0][i] = h.beta * s[0][i] + h.rest * d
    w[i] -= h.rate * (h.beta * s[0][i] + h.rest * d)


def adam(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """m = beta m + (1 - beta) g; q = beta2 q + (1 - beta2) g^2; w -= rate m / (sqrt(q) + epsilon).

    Kingma and Ba, "Adam", 2015, with the bias correction folded into the rate (the end of their section 2).
    """
    d = g[i] + h.l2 * w[i]
    s[0][i] = h.beta * s[0][i] + h.rest * d
    s[1][i] = h.beta2 * s[1][i] + h.rest2 * (d * d)
    w[i] -= h.rate * s[0][i] / (np.sqrt(s[1][i]) + h.epsilon)


def adamw(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """`adam` after w -= shrink w: the decay is not averaged with the gradient. Loshchilov and Hutter, 2019."""
    d = g[i] + h.l2 * w[i]
    s[0][i] = h.beta * s[0][i] + h.rest * d
    s[1][i] = h.beta2 * s[1][i] + h.rest2 * (d * d)
    w[i] -= h.shrink * w[i] + h.rate * s[0][i] / (np.sqrt(s[1][i]) + h.epsilon)


def heavy_ball(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """v = beta v - rate g; w += v: momentum with the rate inside, as in scikit-learn. Polyak, 1964."""
    s[0][i] = h.beta * s[0][i] - h.rate * (g[i] + h.l2 * w[i])
    w[i] += s[0][i]


def heavy_ball_nesterov(w: Any, g: Any, s: Any, i: Any, h: Step) -> None:
    """v = beta v - rate g; w += beta v - rate g: `heavy_ball` that looks one step ahead."""
    d = h.rate * (g[i] + h.l2 * w[i])
    s[0][i] = h.beta * s[0][i] - d
    w[i] += h.beta * s[0][i] - d


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
    "adamw": Optimizer(adamw, 2, 1e-3),
    "heavy_ball": Optimizer(heavy_ball, 1, 0.05),
    "heavy_ball_nesterov": Optimizer(heavy_ball_nesterov, 1, 0.05),
}


DECAY = 0.01  # AdamW's weight decay where none is given


class Settings(NamedTuple):
    """What an optimizer keeps to through all its steps."""

    beta: float = 0.9  # decay of the mean of gradients
    beta2: float = 0.999  # Adam: decay of the mean of squares
    epsilon: float = 1e-8  # Adam: keeps the division finite
    weight_decay: float = 0.0  # AdamW
    clip: float = 0.0  # the longest gradient let through; 0 lets all
    seed: int = 0  # of what dropout leaves out


def find(name: str) -> Optimizer:
    """The optimizer called `name`. Raises OptionError, listing the names, if there is none."""
    if not isinstance(name, str) or name not in OPTIMIZERS:
        raise OptionError(f"optimizer: expected one of {', '.join(OPTIMIZERS)}; got {name!r}")
    return OPTIMIZERS[name]


def corrected_rates(rule: Callable[..., None], rates: Any, settings: Settings, t: Any) -> Any:
    """The rates of steps `t`, counted from 1, as `Step` wants them: Adam's with the bias correction. rates, t (n,)."""
    if rule not in (adam, adamw):
        return rates
    return rates * np.sqrt(1 - settings.beta2**t) / (1 - settings.beta**t)


def step_scalars(
    rule: Callable[..., None], rate: float, settings: Settings, t: int, dtype: np.dtype, l2: float = 0.0
) -> Step:
    """The numbers of step `t`, counted from 1, as scalars of `dtype`."""
    beta, beta2 = settings.beta, settings.beta2
    corrected = corrected_rates(rule, rate, settings, t)
    numbers = corrected, l2, rate * settings.weight_decay, beta, 1 - beta, beta2, 1 - beta2, settings.epsilon
    return Step(*map(dtype.type, numbers))


def step_table(
    rule: Callable[..., None], rates: np.ndarray, settings: Settings, first: int, dtype: np.dtype, l2: np.ndarray
) -> np.ndarray:
    """`step_scalars` of many steps, of which `first` is the first: a row each. rates, l2 (n,) -> (n, 8)."""
    table = np.empty((len(rates), len(Step._fields)), dtype)
    table[:] = step_scalars(rule, 0.0, settings, 1, dtype)
    numbers = Step(*table.T)
    numbers.rate[:] = corrected_rates(rule, rates, settings, first + np.arange(len(rates)))
    numbers.l2[:] = l2
    numbers.shrink[:] = rates * settings.weight_decay
    return table
