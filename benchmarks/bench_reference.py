"""What the timed code must compute: NumPy in float64 that imports nothing of fastmlp.

Letters as in fastmlp/network.py: N rows, I inputs, H hidden units, O classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

I, H, O = 784, 160, 10


class Weights(NamedTuple):
    """A 784-160-10 network."""

    W1: np.ndarray  # (I, H)
    b1: np.ndarray  # (H,)
    W2: np.ndarray  # (H, O)
    b2: np.ndarray  # (O,)


def start() -> np.ndarray:
    """Start values as one float32 array (P,): W1, b1, W2, b2, row by row. Biases other than 0, so that each counts."""
    rng = np.random.default_rng(1)
    W1 = rng.standard_normal(I * H) * np.sqrt(2 / I)
    W2 = rng.standard_normal(H * O) * np.sqrt(2 / H)
    b1, b2 = rng.standard_normal(H) / 4, rng.standard_normal(O) / 4
    return np.concatenate([W1, b1, W2, b2]).astype(np.float32)


def weights(flat: np.ndarray) -> Weights:
    """The parts of parameters (P,), in float64."""
    W1, b1, W2, b2 = np.split(flat.astype(np.float64), np.cumsum([I * H, H, H * O]))
    return Weights(W1.reshape(I, H), b1, W2.reshape(H, O), b2)


def logits(x: np.ndarray, w: Weights) -> np.ndarray:
    """x (N, I) -> (N, O)."""
    return np.maximum(x @ w.W1 + w.b1, 0) @ w.W2 + w.b2


def softmax_and_losses(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """z (N, O), y (N,) -> probabilities (N, O) and each row's cross entropy (N,)."""
    shifted = z - z.max(axis=1, keepdims=True)
    total = np.exp(shifted).sum(axis=1, keepdims=True)  # (N, 1)
    return np.exp(shifted) / total, np.log(total[:, 0]) - shifted[np.arange(len(y)), y]


def mean_loss(x: np.ndarray, y: np.ndarray, flat: np.ndarray) -> float:
    """Mean cross entropy of rows x (N, I), y (N,) under parameters (P,)."""
    return float(softmax_and_losses(logits(x, weights(flat)), y)[1].mean())


def epoch(
    x: np.ndarray, y: np.ndarray, order: np.ndarray, batch: int, flat: np.ndarray, rate: float, beta: float
) -> tuple[float, np.ndarray]:
    """One epoch with momentum: the mean of the rows' losses, each before its own step, and the parameters (P,) after.

    v = beta v + (1 - beta) g; w = w - rate v, for the weights and biases of both layers.
    """
    w = weights(flat)
    velocity = [np.zeros_like(part) for part in w]
    total = 0.0
    for first in range(0, len(order), batch):
        pick = order[first : first + batch]
        xb, yb = x[pick], y[pick]  # (n, I), (n,)
        a = np.maximum(xb @ w.W1 + w.b1, 0)  # (n, H)
        p, losses = softmax_and_losses(a @ w.W2 + w.b2, yb)  # (n, O), (n,)
        total += losses.sum()
        dz2 = (p - np.eye(O)[yb]) / len(pick)  # (n, O)
        dz1 = np.where(a > 0, dz2 @ w.W2.T, 0)  # (n, H)
        for part, v, g in zip(w, velocity, (xb.T @ dz1, dz1.sum(0), a.T @ dz2, dz2.sum(0)), strict=True):
            v += (1 - beta) * (g - v)
            part -= rate * v
    return total / len(order), np.concatenate([part.ravel() for part in w])


def assert_close(actual: np.ndarray, exact: np.ndarray, tolerance: float) -> None:
    """Fail unless `actual`, float32, is within `tolerance` of `exact`, as a share of the largest exact value."""
    assert actual.dtype == np.float32
    assert actual.shape == exact.shape
    worst = np.abs(actual - exact).max() / np.abs(exact).max()
    assert worst <= tolerance, f"wrong result: off by {worst:.2g} of the largest value, allowed {tolerance:g}"
