"""train(): what it learns, whatever the optimizer, the batches and the labels."""

import numpy as np
import oracle
import pytest
from tolerance import assert_close

from fastmlp.network import initialise, layer_views
from fastmlp.optimizers import OPTIMIZERS


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6), (8, 6, 5)], ids=str)
@pytest.mark.parametrize("batch", [16, "full"])
def test_every_optimizer_learns_the_blobs(fit, blobs, rule, hidden, batch):
    rate = 0.05 if rule.startswith("adam") else 0.03 if rule.startswith("heavy") else 0.3
    model = fit(
        optimizer=rule, hidden=hidden, batch_size=batch, epochs=300 if batch == "full" else 40, learning_rate=rate
    )
    assert model.sizes == (4, *hidden, 3)
    assert model.history.train_loss[-1] < 0.5 * model.history.train_loss[0]
    assert model.score(*blobs) > 0.9


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_full_batch_follows_the_oracle(fit, blobs, dtype, rule):
    model = fit(
        optimizer=rule, batch_size="full", epochs=20, learning_rate=0.05, beta=0.8, seed=5, precision=dtype.name
    )
    start = initialise((4, 8, 3), np.random.default_rng(5), dtype)
    X = blobs[0].astype(dtype)
    curve, hits, W, b = oracle.train(
        X, blobs[1], *layer_views(start, (4, 8, 3)), steps=20, rule=rule, rate=0.05, beta=0.8, decay=0.01
    )
    assert_close(model.history.train_loss, curve, dtype, "run")
    assert_close(model.history.train_accuracy, hits, dtype, "run")
    for got, want in zip((*model.weights, *model.biases), (*W, *b), strict=True):
        assert_close(got, want, dtype, "run")


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(fit):
    model = fit(batch_size=1000)
    assert model.report.batch_size == 90
    assert model.learner.steps == 3


@pytest.mark.parametrize(("batch", "steps"), [(1, 90), (16, 6), (90, 1), ("full", 1)])
def test_steps_an_epoch(fit, batch, steps):
    assert fit(batch_size=batch, epochs=1).learner.steps == steps


def test_two_rows_are_enough(fit):
    model = fit([[0.0], [1.0]], [0, 1], epochs=1)
    assert len(model.history) == 1


def test_hidden_may_be_one_number(fit):
    assert fit(hidden=7).sizes == fit(hidden=[7]).sizes == fit(hidden=(np.int64(7),)).sizes == (4, 7, 3)


def test_whole_numbers_of_numpy_are_taken_everywhere(fit):
    numbers = {name: np.int64(2) for name in ("hidden", "epochs", "batch_size", "seed")}
    assert fit(**numbers).sizes == (4, 2, 3)


def test_a_fraction_of_numpy_is_a_fraction(fit):
    assert fit(validation=np.float32(0.25)).report.validation_rows == fit(validation=0.25).report.validation_rows


def test_numpy_numbers_do_not_spoil_saving(fit, tmp_path):
    numbers = {name: np.int64(2) for name in ("epochs", "batch_size", "seed")}
    model = fit(hidden=(np.int64(2),), learning_rate=np.float32(0.1), beta=np.float32(0.5), **numbers)
    model.save(tmp_path / "model")


def test_the_data_given_stay_as_they_were(fit, blobs):
    X, y = (array.copy() for array in blobs)
    fit(X, y, scale="standard", validation=0.2)
    np.testing.assert_array_equal(X, blobs[0])
    np.testing.assert_array_equal(y, blobs[1])


LABELS = {
    "ints": lambda y: y * 10 - 5,
    "text": lambda y: np.array(["cat", "dog", "eel"])[y],
    "list of text": lambda y: [["cat", "dog", "eel"][k] for k in y],
    "objects": lambda y: np.array(["cat", "dog", "eel"], dtype=object)[y],
    "floats": lambda y: y.astype(float),
    "one-hot": lambda y: np.eye(3)[y],
    "column": lambda y: y[:, None],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_kind_of_labels_changes_no_bit(fit, blobs, labels):
    plain, other = fit(), fit(y=labels(blobs[1]))
    np.testing.assert_array_equal(plain.parameters, other.parameters)


def test_bool_labels(fit, blobs):
    model = fit(y=blobs[1] == 1, epochs=20, learning_rate=0.05)
    predicted = model.predict(blobs[0])
    assert predicted.dtype == bool
    assert np.mean(predicted == (blobs[1] == 1)) > 0.9
