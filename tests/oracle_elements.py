"""The independent answer for single elements: activations and losses in float64. Imports nothing of fastmlp.

Written from the formulas in their textbook form, so for moderate numbers only: nothing is kept from overflowing.
z, y (N, O); c (O,) is the outputs' own number: huber's delta, quantile's share, the ceiling of logistic.
"""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


K = np.sqrt(2 / np.pi)


def inner(z):
    """The argument of the tanh in gelu."""
    return K * (z + 0.044715 * z**3)


# name: (a = f(z), da/dz from z)
ACTIVATIONS = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "logistic": (sigmoid, lambda z: np.exp(-z) / (1 + np.exp(-z)) ** 2),
    "tanh": (np.tanh, lambda z: 1 / np.cosh(z) ** 2),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.01 * z), lambda z: np.where(z > 0, 1.0, 0.01)),
    "elu": (
        lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
        lambda z: np.where(z > 0, 1.0, np.exp(np.minimum(z, 0))),
    ),
    "gelu": (
        lambda z: 0.5 * z * (1 + np.tanh(inner(z))),
        lambda z: (
            0.5 * (1 + np.tanh(inner(z))) + 0.5 * z * K * (1 + 3 * 0.044715 * z**2) / np.cosh(inner(z)) ** 2
        ),
    ),
    "silu": (lambda z: z * sigmoid(z), lambda z: sigmoid(z) + z * sigmoid(z) * (1 - sigmoid(z))),
}  # fmt: skip


def capped(loss, c):
    return np.where(c > 0, np.minimum(loss, np.where(c > 0, c, np.inf)), loss)


# name: (loss of each element, its slope)
LOSSES = {
    "logistic": (
        lambda z, y, c: capped(-y * np.log(sigmoid(z)) - (1 - y) * np.log(1 - sigmoid(z)), c),
        lambda z, y, c: sigmoid(z) - y,
    ),
    "squared_error": (lambda z, y, c: (z - y) ** 2 / 2, lambda z, y, c: z - y),
    "poisson": (
        lambda z, y, c: y * np.log(np.where(y > 0, y, 1)) - y * z - y + np.exp(z),
        lambda z, y, c: np.exp(z) - y,
    ),
    "absolute_error": (lambda z, y, c: np.abs(z - y), lambda z, y, c: np.sign(z - y)),
    "huber": (
        lambda z, y, c: np.where(np.abs(z - y) <= c, (z - y) ** 2 / 2, c * (np.abs(z - y) - c / 2)),
        lambda z, y, c: np.clip(z - y, -c, c),
    ),
    "quantile": (
        lambda z, y, c: np.maximum(c * (y - z), (c - 1) * (y - z)),
        lambda z, y, c: np.where(z < y, -c, np.where(z > y, 1 - c, 0.0)),
    ),
}


def cross_entropy(z, y, numbers=(0, 0, 0)):
    """Of each row: the loss (N,) and its slope (N, O); y (N,) is the right class; numbers: smoothing, gamma, ceiling.

    The loss is -sum(target log p), or -(1 - p[y])^gamma log p[y], or is counted up to the ceiling, which leaves the
    slope alone.
    """
    smoothing, gamma, ceiling = map(float, numbers)
    z = np.asarray(z, np.float64)
    top = z.max(axis=1, keepdims=True)
    log_p = z - top - np.log(np.exp(z - top).sum(axis=1, keepdims=True))  # (N, O)
    p, onehot = np.exp(log_p), np.eye(z.shape[1])[y]  # (N, O)
    if gamma:
        right, log_right = p[onehot == 1][:, None], log_p[onehot == 1][:, None]  # (N, 1)
        # d/dp of -(1 - p)^gamma log p, times dp/dz = p (onehot - p)
        by_p = gamma * (1 - right) ** (gamma - 1) * log_right - (1 - right) ** gamma / right
        return (-((1 - right) ** gamma) * log_right)[:, 0], by_p * right * (onehot - p)
    target = (1 - smoothing) * onehot + smoothing / z.shape[1]
    loss = -(target * log_p).sum(axis=1)
    return np.minimum(loss, ceiling) if ceiling else loss, p - target


def loss_of_rows(name, z, y, numbers=()):
    """The loss of each row (N,) and its slope dz (N, O)."""
    if name == "cross_entropy":
        return cross_entropy(z, y, numbers or (0, 0, 0))
    z, y = np.asarray(z, np.float64), np.asarray(y, np.float64)
    c = np.broadcast_to(np.asarray(numbers or (0.0,), np.float64), z.shape[1])
    loss, slope = LOSSES[name]
    return loss(z, y, c).sum(axis=1), slope(z, y, c)


def hashed(n):
    """SplitMix64 in whole numbers: 64 bits of the number n."""
    n = (n + 0x9E3779B97F4A7C15) * 0x9E3779B97F4A7C15 % 2**64
    n = (n ^ n >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    n = (n ^ n >> 27) * 0x94D049BB133111EB % 2**64
    return n ^ n >> 31


def mask(share, key, n, h, first=0):
    """What a layer's units (n, h) are multiplied by: 0 where the hash of their place is below the share."""
    key, least = hashed(int(key)), int(share * 2**24)
    stays = [hashed(place ^ key) >> 40 >= least for place in range(first * h, (first + n) * h)]
    return np.reshape(stays, (n, h)) / (1 - share)
