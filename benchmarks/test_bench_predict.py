"""Model.predict on host rows, as people call it: checks, transfer to a GPU and the way back are inside."""

from __future__ import annotations

import numpy as np
import pytest

import fastmlp
from benchmarks.bench_reference import H, I, O, Weights, logits

TRAINING_ROWS = 2_000  # enough for a network that knows the classes apart


@pytest.fixture
def model(backend, data):
    X, y = data.X[:TRAINING_ROWS], data.y[:TRAINING_ROWS]
    return fastmlp.train(X, y, hidden=H, backend=backend.name, epochs=1, strict=True, progress=False)


def assert_most_probable(model, X, labels):
    """Fail unless each row's label has the largest logit in float64; ties within rounding may go either way."""
    assert labels.shape == (len(X),)
    weights, biases = ([part.astype(np.float64) for part in parts] for parts in (model.weights, model.biases))
    z = logits(X / 255, Weights(weights[0], biases[0], weights[1], biases[1]))  # (N, O)
    chosen = z[np.arange(len(X)), np.searchsorted(model.classes, labels)]  # (N,)
    assert (z.max(axis=1) - chosen <= 1e-5 * np.abs(z).max()).all(), "wrong result: a label is not the most probable"


def test_predict_all(measure, backend, model, data, n):
    measure(f"predict {n} rows", backend, lambda: model.predict(data.X),
            lambda labels: assert_most_probable(model, data.X, labels), gflop=2e-9 * n * (I * H + H * O))  # fmt: skip


def test_predict_one(measure, backend, model, data):
    row = data.X[:1]  # (1, I)
    measure("predict 1 row", backend, lambda: model.predict(row),
            lambda labels: assert_most_probable(model, row, labels), rounds=50, iterations=20)  # fmt: skip
