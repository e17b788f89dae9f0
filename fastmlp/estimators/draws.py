"""What is drawn at random, as scikit-learn draws it, so that one random_state gives one model in both libraries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastmlp.network import layer_views, parameter_count


def start_values(
    sizes: Sequence[int], activations: Sequence[str], random: np.random.RandomState, dtype: np.dtype
) -> np.ndarray:
    """Start values (P,), uniform in +-sqrt(6 / (fan_in + fan_out)), the square root of 2 / ... for "logistic".

    Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010, eq. 16.
    Weights are drawn before biases, layer by layer, in float64 whatever `dtype` is. `activations` has one name a
    layer, the output layer's being the one its inputs come from.
    """
    flat = np.empty(parameter_count(sizes), dtype)  # (P,)
    for W, b, activation in zip(*layer_views(flat, sizes), activations, strict=True):
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / sum(W.shape))
        W[:] = random.uniform(-bound, bound, W.shape)  # (fan_in, fan_out)
        b[:] = random.uniform(-bound, bound, b.shape)  # (fan_out,)
    return flat


class Orders:
    """The order of the rows in each epoch: each shuffles the one before.

    `index` has the rows to take, None for all of n; where `random` is None they are never shuffled.
    """

    def __init__(self, n: int, index: np.ndarray | None, random: np.random.RandomState | None):
        self.random = random
        self.order = index if index is not None or random is None else np.arange(n)  # (N,)

    def next(self) -> np.ndarray | None:
        """(N,) the rows in the order of the next epoch; None for all as they stand."""
        if self.random is not None and self.order is not None:
            self.order = self.order.copy()
            self.random.shuffle(self.order)  # exchanges places whatever stands in them: no index of an index
        return self.order
