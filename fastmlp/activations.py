"""Activations: what a hidden unit makes of z, and how steeply.

An activation is two functions of elements, a = f(z) and da/dz = slope(z, a). NumPy runs them on arrays, Numba compiles
them for single numbers, the CUDA kernels are tested against them. Where `slope` needs a only, a may be written over z.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from fastmlp.elementary import exp, like, tanh, where
from fastmlp.errors import OptionError

LEAK = 0.01  # leaky_relu: the slope below zero
GELU_SCALE, GELU_CUBE = 0.7978845608028654, 0.044715  # sqrt(2 / pi), and the paper's constant


def identity(z: Any) -> Any:
    """a = z."""
    return z


def identity_slope(z: Any, a: Any) -> Any:
    """da/dz = 1."""
    return like(1, a)


def relu(z: Any) -> Any:
    """a = max(z, 0); a NaN stays one."""
    return where(z < 0, like(0, z), z)


def relu_slope(z: Any, a: Any) -> Any:
    """da/dz = 1 where a > 0, else 0."""
    return where(a > 0, like(1, a), like(0, a))


def logistic(z: Any) -> Any:
    """a = 1 / (1 + exp(-z)), from exp(-|z|), which cannot overflow."""
    e = exp(-abs(z))
    return where(z < 0, e, like(1, z)) / (like(1, z) + e)


def logistic_slope(z: Any, a: Any) -> Any:
    """da/dz = a (1 - a)."""
    return a * (like(1, a) - a)


def tanh_slope(z: Any, a: Any) -> Any:
    """da/dz = 1 - a^2."""
    return like(1, a) - a * a


def leaky_relu(z: Any) -> Any:
    """a = z where z > 0, else 0.01 z. Maas, Hannun and Ng, 2013."""
    return where(z > 0, z, like(LEAK, z) * z)


def leaky_relu_slope(z: Any, a: Any) -> Any:
    """da/dz = 1 where a > 0, else 0.01."""
    return where(a > 0, like(1, a), like(LEAK, a))


def elu(z: Any) -> Any:
    """a = z where z > 0, else exp(z) - 1. Clevert, Unterthiner and Hochreiter, 2015."""
    return where(z > 0, z, exp(-abs(z)) - like(1, z))


def elu_slope(z: Any, a: Any) -> Any:
    """da/dz = 1 where a > 0, else a + 1."""
    return where(a > 0, like(1, a), a + like(1, a))


def gelu(z: Any) -> Any:
    """a = z (1 + tanh(sqrt(2/pi) (z + 0.044715 z^3))) / 2. Hendrycks and Gimpel, 2016, the form with tanh."""
    t = tanh(like(GELU_SCALE, z) * (z + like(GELU_CUBE, z) * z * z * z))
    return like(0.5, z) * z * (like(1, z) + t)


def gelu_slope(z: Any, a: Any) -> Any:
    """da/dz = (1 + t) / 2 + z (1 - t^2) sqrt(2/pi) (1 + 3 * 0.044715 z^2) / 2, t the tanh in `gelu`."""
    t = tanh(like(GELU_SCALE, z) * (z + like(GELU_CUBE, z) * z * z * z))
    inner = like(GELU_SCALE, z) * (like(1, z) + like(3 * GELU_CUBE, z) * z * z)
    return like(0.5, z) * (like(1, z) + t) + like(0.5, z) * z * (like(1, z) - t * t) * inner


def silu(z: Any) -> Any:
    """a = z logistic(z). Elfwing, Uchibe and Doya, 2018."""
    e = exp(-abs(z))
    return z * where(z < 0, e, like(1, z)) / (like(1, z) + e)


def silu_slope(z: Any, a: Any) -> Any:
    """da/dz = p + a (1 - p), p = logistic(z)."""
    e = exp(-abs(z))
    p = where(z < 0, e, like(1, z)) / (like(1, z) + e)
    return p + a * (like(1, z) - p)


class Activation(NamedTuple):
    """A function of elements with its slope."""

    f: Callable[[Any], Any]
    slope: Callable[[Any, Any], Any]
    keeps_z: bool = False  # the slope needs z too: a must not be written over it


# The place of an activation here is the whole number that the operations know it by.
ACTIVATIONS = {
    "identity": Activation(identity, identity_slope),
    "relu": Activation(relu, relu_slope),
    "logistic": Activation(logistic, logistic_slope),
    "tanh": Activation(tanh, tanh_slope),
    "leaky_relu": Activation(leaky_relu, leaky_relu_slope),
    "elu": Activation(elu, elu_slope),
    "gelu": Activation(gelu, gelu_slope, keeps_z=True),
    "silu": Activation(silu, silu_slope, keeps_z=True),
}
KINDS = tuple(ACTIVATIONS.values())  # by that number
IDENTITY, RELU = 0, 1


def kind_of(name: str) -> int:
    """The number of the activation called `name`. Raises OptionError, listing the names, if there is none."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise OptionError(f"activation: expected one of {', '.join(ACTIVATIONS)}; got {name!r}")
    return list(ACTIVATIONS).index(name)
