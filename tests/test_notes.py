"""The notes' run: full batch, momentum with beta 0.9, held against the float64 oracle's loss curve."""

import numpy as np
import oracle
import pytest
from sklearn.datasets import load_digits

from fastmlp import train
from fastmlp.network import initialise, layer_views

EPOCHS = 20
NOTES = {
    "optimizer": "momentum", "learning_rate": 0.5, "beta": 0.9, "batch_size": "full", "epochs": EPOCHS, "seed": 0,
    "progress": False,
}  # fmt: skip


def reference(x, y, sizes):
    """The oracle's losses and accuracies, from the weights that seed 0 starts with."""
    start = initialise(sizes, np.random.default_rng(0), np.dtype("float32"))
    return oracle.train(x, y, *layer_views(start, sizes), steps=EPOCHS)[:2]


@pytest.fixture(scope="session")
def small():
    """500 scanned digits of 8 by 8, as bytes, with the oracle's curve."""
    digits = load_digits()
    X, y = (digits.data[:500] * 15).astype(np.uint8), digits.target[:500]
    return X, y, reference(X / 255.0, y, (64, 32, 10))


@pytest.fixture(scope="session")
def large(mnist):
    """The 42,000 rows of the notes, with the oracle's curve."""
    X, y, _, _ = mnist
    return X, y, reference(X / 255.0, y, (784, 160, 10))


def test_five_hundred_digits_follow_the_oracle(backend, small):
    X, y, (curve, hits) = small
    model = train(X, y, hidden=(32,), backend=backend.name, **NOTES)
    np.testing.assert_allclose(model.history.train_loss, curve, rtol=1e-4)
    np.testing.assert_allclose(model.history.train_accuracy, hits, atol=0.005)
    assert curve[-1] < 0.7 * curve[0]


def test_five_hundred_digits_in_float64_follow_the_oracle(backend, small):
    X, y, _ = small
    start = initialise((64, 32, 10), np.random.default_rng(0), np.dtype("float64"))
    curve = oracle.train(X / 255.0, y, *layer_views(start, (64, 32, 10)), steps=EPOCHS)[0]
    model = train(X, y, hidden=(32,), backend=backend.name, precision="float64", **NOTES)
    np.testing.assert_allclose(model.history.train_loss, curve, rtol=1e-10)


def test_mnist_follows_the_oracle(backend, large):
    X, y, (curve, hits) = large
    model = train(X, y, backend=backend.name, **NOTES)
    assert model.sizes == (784, 160, 10)
    np.testing.assert_allclose(model.history.train_loss, curve, rtol=1e-4)
    np.testing.assert_allclose(model.history.train_accuracy, hits, atol=0.002)
    assert curve[-1] < 0.5 * curve[0]


def test_ten_epochs_of_mnist_with_defaults_are_right_on_97_5_percent(backend, mnist):
    X, y, X_test, y_test = mnist
    model = train(X, y, backend=backend.name, epochs=10, progress=False)
    assert model.score(X_test, y_test) >= 0.975
