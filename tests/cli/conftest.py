"""Data and models for the commands."""

import numpy as np
import pytest
from command import SMALL, run, write_csv

from fastmlp import data


@pytest.fixture
def flowers(tmp_path, blobs):
    """A CSV of 90 rows, four columns of numbers and a text label."""
    X, y = blobs
    write_csv(tmp_path / "flowers.csv", X, np.array(["iris", "lily", "rose"])[y])
    return tmp_path / "flowers.csv"


@pytest.fixture
def images(tmp_path, pixels):
    """An .npz of 60 rows of pixels to train on and 20 to test on."""
    X, y = pixels
    np.savez(tmp_path / "images.npz", x_train=X[:60], y_train=y[:60], x_test=X[60:], y_test=y[60:])
    return tmp_path / "images.npz"


@pytest.fixture
def model(tmp_path, flowers):
    """A model file trained on the flowers."""
    run("train", flowers, *SMALL, "--epochs", 20, "--save", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def few_digits(monkeypatch):
    """Stands for the built-in digits: 784 pixels, 300 rows and 100 for validation."""
    rng = np.random.default_rng(3)
    X, y = rng.integers(0, 256, (400, 784), dtype=np.uint8), np.arange(400) % 10
    few = data.Dataset("built-in digits", X[:300], y[:300], (X[300:], y[300:]))
    monkeypatch.setattr(data, "digits", lambda: few)
    return few
