"""Handwritten digits of MNIST's size that need no network, from the 1,797 of 8x8 pixels bundled with scikit-learn."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits

from .idx import TRAINING, VALIDATION, Pair

SIDE, SMALL = 28, 8  # pixels along an image's edge, enlarged and as bundled
ENLARGE = 2.5  # so a digit fills 20 of 28 pixels, as in MNIST
ALIKE = 60  # rows that share one variation; divides both 42,000 and 12,000


def make_digits(seed: int) -> tuple[Pair, Pair]:
    """Make 42,000 training and 12,000 validation rows, X (N, 784) uint8 and y (N,) int64; under half a second.

    The images are split first, each class 7 : 2, so none is on both sides. Each then appears about thirty times: once
    as it is, else shifted by up to 1.5 pixels, turned by up to 10 degrees and scaled by 0.9 to 1.1.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)  # (1797, 64) whole numbers 0 to 16, (1797,)
    images, labels = images.astype(np.float32), labels.astype(np.int64)
    rng = np.random.default_rng(seed)
    classes = [rng.permutation(np.flatnonzero(labels == digit)) for digit in range(10)]
    train = np.concatenate([c[: len(c) * 7 // 9] for c in classes])
    validate = np.concatenate([c[len(c) * 7 // 9 :] for c in classes])
    with threadpool_limits(1):  # the products are small: two BLAS threads only wait for each other
        return _vary(rng, images, labels, train, TRAINING), _vary(rng, images, labels, validate, VALIDATION)


def _vary(rng: np.random.Generator, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray, rows: int) -> Pair:
    """Draw X (rows, 784) uint8 and y (rows,) from the chosen images, all equally often, in random order."""
    source = np.concatenate([rng.permutation(chosen) for _ in range(0, rows, len(chosen))])[:rows]
    place = rng.permutation(rows)
    X, y = np.empty((rows, SIDE * SIDE), np.uint8), np.empty(rows, np.int64)
    for start in range(0, rows, ALIKE):
        turn, zoom, shift = np.deg2rad(rng.uniform(-10, 10)), rng.uniform(0.9, 1.1), rng.uniform(-1.5, 1.5, 2)
        if start < len(chosen):  # the first round: every image as it is
            turn, zoom, shift = 0.0, 1.0, np.zeros(2)
        which, where = source[start : start + ALIKE], place[start : start + ALIKE]
        ink = images[which] @ _enlarging(turn, zoom, shift)  # (60, 64)(64, 784) -> (60, 784), about 0 to 16
        X[where] = np.clip(ink * 25.5 - 76.5, 0, 255)  # more contrast than 255/16: strokes as solid as MNIST's
        y[where] = labels[which]
    return X, y


def _enlarging(turn: float, zoom: float, shift: np.ndarray) -> np.ndarray:
    """Build the matrix (64, 784) that takes an 8x8 image to 28x28: cubic interpolation is linear in the pixels.

    Weights are rounded to 1/1024, so each sum of products is exact in float32 and no BLAS can change a byte.
    """
    rows, columns = np.indices((SIDE, SIDE)).reshape(2, -1) - (SIDE - 1) / 2 - shift[:, None]  # (784,) from the centre
    cos, sin = np.cos(turn) / (ENLARGE * zoom), np.sin(turn) / (ENLARGE * zoom)
    grid = np.arange(SMALL)[:, None] - (SMALL - 1) / 2  # (8, 1)
    down = _cubic(cos * rows - sin * columns - grid)  # (8, 784) weight of each small row in each pixel
    along = _cubic(sin * rows + cos * columns - grid)  # (8, 784) and of each small column
    weights = (down[:, None] * along).reshape(SMALL * SMALL, -1)  # (8, 8, 784) -> (64, 784)
    rounded: np.ndarray = np.rint(weights * 1024) / 1024
    return rounded.astype(np.float32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Catmull-Rom's weight of a sample at some distance: 1 at 0, 0 at 1 and from 2 on."""
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((2.5 - 0.5 * d) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))
