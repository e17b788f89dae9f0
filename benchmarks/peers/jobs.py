"""What is trained: data, network, rule and start, the same for every library.

A job is small and holds no data, so that it can be sent to another process, which makes the data anew.
Letters: N rows, I inputs, O classes, P parameters.
"""

from __future__ import annotations

import os
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastmlp.data import read
from fastmlp.idx import read_idx
from fastmlp.network import initialise, layer_views
from fastmlp.optimizers import Settings

ROWS = 42_000
BETA2, EPSILON = Settings().beta2, Settings().epsilon  # Adam's: fastmlp's own defaults, for every library


class Data(NamedTuple):
    """Labelled rows, as fastmlp and as the peers take them."""

    raw: np.ndarray  # (N, I) as fastmlp takes them: uint8 pixels, or x itself
    x: np.ndarray  # (N, I) float32, scaled: what the peers hold, made before the clock starts
    y: np.ndarray  # (N,) int32


class Source(NamedTuple):
    """Which rows to make."""

    name: str  # a key of SOURCES
    rows: int | None  # at most; None is all there are
    inputs: int = 784
    classes: int = 10
    wrong: bool = False  # labels dealt to other rows: to warm up on

    def load(self) -> Data:
        """The rows, made once in a process."""
        data = SOURCES[self.name](self._replace(wrong=False))
        return data._replace(y=np.random.default_rng(0).permutation(data.y)) if self.wrong else data


class Job(NamedTuple):
    """One network to train on one set of rows."""

    source: Source
    hidden: tuple[int, ...]
    batch: int  # rows a step; N or more is the full batch, in the order of the rows
    optimizer: str  # "momentum" or "adam"
    rate: float
    threads: int
    beta: float = 0.9
    seed: int = 1  # of the start
    precision: str = "float32"  # of the operands of products; all else is float32

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each layer, inputs first."""
        return self.source.inputs, *self.hidden, self.source.classes

    @property
    def data(self) -> Data:
        """The rows."""
        return self.source.load()

    @property
    def full(self) -> bool:
        """Whether a step takes all rows."""
        return self.batch >= len(self.data.y)

    def head(self, steps: int) -> Job:
        """The same on the rows of the first few steps, the last of which gets half a batch."""
        return self._replace(source=self.source._replace(rows=int((steps - 0.5) * self.batch)))

    def start(self) -> np.ndarray:
        """The parameters before the first step (P,), float32. Biases other than 0, so that each counts."""
        rng = np.random.default_rng(self.seed)
        flat = initialise(self.sizes, rng, np.dtype(np.float32))
        for bias in layer_views(flat, self.sizes)[1]:
            bias[:] = rng.standard_normal(bias.shape) / 10
        return flat

    def order(self, seed: int = 5) -> np.ndarray | None:
        """The rows in the order of an epoch (N,); None for the full batch: as they stand."""
        return None if self.full else np.random.default_rng(seed).permutation(len(self.data.y))

    def rates(self) -> np.ndarray:
        """The rate of each step of an epoch (steps,)."""
        return np.full(-(-len(self.data.y) // self.batch), self.rate)

    def flop(self) -> float:
        """Work of one epoch: forward and weight gradient of every layer, deltas of all but the first."""
        weights = [fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes)]
        return 2.0 * len(self.data.y) * (3 * sum(weights) - weights[0])

    def flop_forward(self) -> float:
        """Work of one pass forward."""
        return 2.0 * len(self.data.y) * sum(fan_in * fan_out for fan_in, fan_out in pairwise(self.sizes))


def scaled(pixels: np.ndarray) -> np.ndarray:
    """uint8 pixels as float32 from 0 to 1, multiplied as fastmlp does."""
    return pixels * np.float32(1 / 255)


@cache
def images(source: Source) -> Data:
    """The first images of MNIST, from the folder named by FASTMLP_MNIST, or of the built-in digits."""
    dataset = read(os.environ.get("FASTMLP_MNIST"))
    assert dataset.y is not None
    X, y = dataset.X[: source.rows], dataset.y[: source.rows]
    return Data(X, scaled(X), y.astype(np.int32))


def images_name() -> str:
    """Which images `images` reads."""
    return "MNIST" if os.environ.get("FASTMLP_MNIST") else "built-in digits"


@cache
def mnist(source: Source) -> Data:
    """One of MNIST's own two parts, whole or its first rows: "mnist train", 60,000 images, or "mnist test", 10,000."""
    folder, part = Path(os.environ["FASTMLP_MNIST"]), {"mnist train": "train", "mnist test": "t10k"}[source.name]
    X, y = (read_idx(next(folder.glob(f"{part}-{kind}*")), axes) for kind, axes in (("images", 3), ("labels", 1)))
    X = X[: source.rows].reshape(-1, X[0].size)  # (N, 784)
    return Data(X, scaled(X), y[: source.rows].astype(np.int32))


@cache
def dense(source: Source) -> Data:
    """Rows without zeros, whose class a random linear map tells, with noise so that no net learns it whole."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((source.rows or ROWS, source.inputs), np.float32)  # (N, I)
    x[x == 0] = 1
    z = x @ rng.standard_normal((source.inputs, source.classes), np.float32)  # (N, O)
    y = (z + z.std() * rng.standard_normal(z.shape, np.float32) / 2).argmax(axis=1).astype(np.int32)
    return Data(x, x, y)


SOURCES = {"images": images, "dense": dense, "mnist train": mnist, "mnist test": mnist}
