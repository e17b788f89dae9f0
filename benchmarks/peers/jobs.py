"""What is trained: data, network, rule and start, the same for every library.

Letters: N rows, I inputs, O classes, P parameters.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from fastmlp.data import read
from fastmlp.network import initialise, layer_views

ROWS = 42_000


class Job(NamedTuple):
    """One network to train on one set of rows."""

    raw: np.ndarray  # (N, I) as fastmlp takes them: uint8 pixels, or x itself
    x: np.ndarray  # (N, I) float32, scaled: what the peers hold, made before the clock starts
    y: np.ndarray  # (N,) int32
    sizes: tuple[int, ...]
    batch: int  # rows a step; N or more is the full batch, in the order of the rows
    optimizer: str  # "momentum" or "adam"
    rate: float
    threads: int
    beta: float = 0.9
    seed: int = 1  # of the start

    @property
    def full(self) -> bool:
        """Whether a step takes all rows."""
        return self.batch >= len(self.y)

    def head(self, steps: float) -> Job:
        """The same on the rows of the first few steps."""
        count = int(steps * self.batch)
        return self._replace(raw=self.raw[:count], x=self.x[:count], y=self.y[:count])

    def start(self) -> np.ndarray:
        """The parameters before the first step (P,), float32. Biases other than 0, so that each counts."""
        rng = np.random.default_rng(self.seed)
        flat = initialise(self.sizes, rng, np.dtype(np.float32))
        for bias in layer_views(flat, self.sizes)[1]:
            bias[:] = rng.standard_normal(bias.shape) / 10
        return flat

    def order(self, seed: int = 5) -> np.ndarray | None:
        """The rows in the order of an epoch (N,); None for the full batch: as they stand."""
        return None if self.full else np.random.default_rng(seed).permutation(len(self.y))

    def flop(self) -> float:
        """Work of one epoch: forward and weight gradient of every layer, deltas of all but the first."""
        weights = [fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes)]
        return 2.0 * len(self.y) * (3 * sum(weights) - weights[0])

    def flop_forward(self) -> float:
        """Work of one pass forward."""
        return 2.0 * len(self.y) * sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes))


class Data(NamedTuple):
    """Labelled rows, as fastmlp and as the peers take them."""

    raw: np.ndarray  # (N, I)
    x: np.ndarray  # (N, I) float32
    y: np.ndarray  # (N,) int32


@cache
def images(rows: int | None) -> Data:
    """The first images of MNIST, from the folder named by FASTMLP_MNIST, or of the built-in digits."""
    dataset = read(os.environ.get("FASTMLP_MNIST"))
    assert dataset.y is not None
    return Data(dataset.X[:rows], scaled(dataset.X[:rows]), dataset.y[:rows].astype(np.int32))


def images_name() -> str:
    """Which images `images` reads."""
    return "MNIST" if os.environ.get("FASTMLP_MNIST") else "built-in digits"


def scaled(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels as float32 from 0 to 1, multiplied as fastmlp does."""
    return pixels * np.float32(1 / 255)


@cache
def dense(rows: int, inputs: int, classes: int) -> Data:
    """Rows without zeros, whose class a random linear map tells, with noise so that no net learns it whole."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((rows, inputs), np.float32)  # (N, I)
    x[x == 0] = 1
    z = x @ rng.standard_normal((inputs, classes), np.float32)  # (N, O)
    y = (z + z.std() * rng.standard_normal(z.shape, np.float32) / 2).argmax(axis=1).astype(np.int32)
    return Data(x, x, y)
