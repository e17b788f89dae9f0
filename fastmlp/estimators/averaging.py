"""weight_averaging: a mean of the weights of all epochs, the later the heavier."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from fastmlp.estimators.engine import Engine


class Averaging:
    """mean = decay * mean + (1 - decay) * weights after each epoch, as if it had begun at the first of them.

    Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992, with exponential weights.
    """

    def __init__(self, engine: Engine, decay: float):
        self.engine, self.decay, self.epochs = engine, decay, 0
        self.sum = np.zeros(engine.parameters.shape)  # (P,) float64

    def add(self) -> None:
        """An epoch is over."""
        self.engine.download()
        self.epochs += 1
        self.sum *= self.decay
        self.sum += (1 - self.decay) * self.engine.parameters  # (P,)

    def put(self) -> None:
        """Put the mean in the weights' place."""
        self.engine.parameters[:] = self.sum / (1 - self.decay**self.epochs)  # (P,)
        self.engine.upload()

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mean in the weights' place for a while."""
        own = self.engine.parameters.copy()  # (P,)
        self.put()
        try:
            yield
        finally:
            self.engine.parameters[:] = own
            self.engine.upload()
