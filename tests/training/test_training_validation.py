"""train(validation=...): which rows are held out, and what is measured on them."""

import numpy as np
import pytest
from quiet import QUIET
from tolerance import assert_close

from fastmlp import DataError, train
from fastmlp.options import Options
from fastmlp.preparation import Source, split


def test_a_validation_pair_is_measured_after_each_epoch(fit, blobs):
    X, y = blobs[0][:20] + 0.1, blobs[1][:20]
    seen = []
    model = fit(validation=(X, y), callbacks=[lambda model: seen.append(model.evaluate(X, y))])
    assert list(zip(model.history.validation_loss, model.history.validation_accuracy, strict=True)) == seen
    assert model.report.validation_rows == 20
    assert model.report.rows == 90


def test_validation_changes_nothing_of_the_training(fit, blobs):
    np.testing.assert_array_equal(fit().parameters, fit(validation=blobs).parameters)


def test_a_fraction_holds_rows_out_in_every_class_share(fit, blobs):
    model = fit(validation=0.2)
    assert (model.report.rows, model.report.validation_rows) == (72, 18)
    rest, held_out = Source(*blobs).split(Options(validation=0.2))
    assert sorted([*rest, *held_out]) == list(range(90))  # no row in both parts, none lost
    assert np.bincount(blobs[1][held_out]).tolist() == [6, 6, 6]


def test_the_fraction_is_what_is_trained_and_measured(fit, blobs):
    X, y = blobs
    rest, held_out = Source(X, y).split(Options(validation=0.2))
    model = fit(validation=0.2, batch_size="full")
    by_hand = fit(X[rest], y[rest], validation=(X[held_out], y[held_out]), batch_size="full")
    np.testing.assert_array_equal(model.parameters, by_hand.parameters)
    assert model.history.validation_loss == by_hand.history.validation_loss


def test_the_split_hangs_on_the_seed():
    codes = np.repeat([0, 1], 50)
    assert split(codes, 0.3, 1)[1].tolist() == split(codes, 0.3, 1)[1].tolist()
    assert split(codes, 0.3, 1)[1].tolist() != split(codes, 0.3, 2)[1].tolist()


def test_shares_are_kept_where_classes_are_rare():
    codes = np.repeat([0, 1], [90, 10])
    train_rows, held_out = split(codes, 0.2, 0)
    assert np.bincount(codes[held_out]).tolist() == [18, 2]
    assert np.bincount(codes[train_rows]).tolist() == [72, 8]


def test_scaling_is_learned_from_the_training_rows_only(fit, blobs):
    X, y = blobs[0].copy(), blobs[1]
    _, held_out = Source(X, y).split(Options(validation=0.2))
    X[held_out] += 1000
    model = fit(X, y, validation=0.2, scale="standard")
    rest = np.setdiff1d(np.arange(90), held_out)
    np.testing.assert_allclose(model.inputs.mean, X[rest].mean(axis=0))
    np.testing.assert_allclose(model.inputs.deviation, X[rest].std(axis=0))


def test_a_standardising_model_takes_raw_rows(fit, blobs):
    X, y = blobs[0] * [1, 1e3, 1e-3, 1] + [0, 1e4, 0, 5], blobs[1]
    model = fit(X, y, scale="standard", epochs=40, learning_rate=0.05, validation=(X, y))
    by_hand = fit((X - X.mean(axis=0)) / X.std(axis=0), y, epochs=40, learning_rate=0.05)
    assert_close(model.predict_proba(X), by_hand.predict_proba((X - X.mean(axis=0)) / X.std(axis=0)), np.float32, "run")
    assert model.history.validation_accuracy[-1] == model.score(X, y) > 0.9


def test_too_few_rows_to_split_are_refused():
    X, y = np.zeros((4, 2)), [0, 0, 0, 1]
    with pytest.raises(DataError, match=r"validation=0.5: the rows cannot be split so that every class has its share"):
        train(X, y, validation=0.5, **QUIET)
