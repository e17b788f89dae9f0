"""train() again: the same seed gives the same bits, and the precision asked for is kept to."""

import numpy as np
import pytest
from quiet import QUIET
from tolerance import assert_close
from traced import peak

from fastmlp import train
from fastmlp.options import Options
from fastmlp.preparation import Source


@pytest.mark.parametrize("batch", [16, "full"])
def test_the_same_seed_gives_the_same_bits(fit, batch):
    one, two = (fit(seed=3, batch_size=batch, validation=0.2) for _ in range(2))
    np.testing.assert_array_equal(one.parameters, two.parameters)
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert getattr(one.history, name) == getattr(two.history, name)


def test_another_seed_gives_other_weights(fit):
    assert not np.array_equal(fit(seed=3).parameters, fit(seed=4).parameters)


def test_training_does_not_touch_numpys_global_generator(fit):
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    fit(validation=0.2)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_batches_are_shuffled_anew_each_epoch_and_full_ones_are_not(fit, blobs, monkeypatch):
    orders = []
    learner = type(fit(epochs=1).learner)
    real = learner.epoch
    monkeypatch.setattr(
        learner, "epoch", lambda self, rows, *rest: (orders.append(rows.index), real(self, rows, *rest))[1]
    )
    fit(epochs=2)
    assert all(sorted(order) == list(range(90)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()
    orders.clear()
    fit(batch_size="full")
    assert orders == [None] * 3
    orders.clear()
    fit(validation=0.2, batch_size="full")
    assert all((np.diff(order) > 0).all() for order in orders)  # in their order, as in the notes
    orders.clear()
    fit(validation=0.2)
    rest, _ = Source(*blobs).split(Options(validation=0.2))
    assert all(sorted(order) == rest.tolist() for order in orders)  # never a row that is held out


def test_backends_train_to_the_same_weights(blobs, dtype):
    ends = [train(*blobs, **QUIET, backend=name, precision=dtype.name).parameters for name in ("numpy", "numba")]
    assert_close(ends[0], ends[1], dtype, "run")


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64"])
def test_the_precision_asked_for_rules_whatever_the_data(fit, blobs, dtype, kind):
    model = fit((blobs[0] * 10).astype(kind), precision=dtype.name, optimizer="adam", validation=0.2)
    made = model.learner
    assert {a.dtype for a in (model.parameters, *model.weights, made.g, made.state)} == {dtype}
    assert model.predict_proba(blobs[0]).dtype == dtype
    assert model.report.precision == dtype.name


def test_bytes_mean_pixels_divided_by_255(fit, pixels):
    X, y = pixels
    scaled = (X.astype(np.float64) / 255).astype(np.float32)
    bytes_, floats = fit(X, y), fit(scaled, y)
    assert bytes_.inputs.pixels
    assert not floats.inputs.pixels
    assert_close(bytes_.parameters, floats.parameters, np.float32, "run")
    assert_close(bytes_.predict_proba(X), bytes_.predict_proba(scaled), np.float32)


def test_bytes_are_never_copied_into_floats(backend):
    X, y = np.zeros((40_000, 500), np.uint8), np.arange(40_000) % 2  # 20 MB; as float32 80 MB
    options = {**QUIET, "hidden": (64,), "epochs": 1, "batch_size": 512, "backend": backend.name}
    assert peak(lambda: train(X, y, validation=0.25, **options)) < 40e6
