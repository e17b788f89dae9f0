"""What is refused, before anything is trained, and what the message tells to do."""

import numpy as np
import pytest
from sklearn.utils._param_validation import InvalidParameterError

from estimators.conftest import data
from fastmlp import MLPClassifier, MLPRegressor

TOGETHER = [
    (dict(solver="lbfgs", dropout=0.1), "dropout: solver='lbfgs'"),
    (dict(solver="lbfgs", clip_norm=1.0), "clip_norm: solver='lbfgs'"),
    (dict(solver="lbfgs", warmup_epochs=1), "warmup_epochs: solver='lbfgs'"),
    (dict(solver="lbfgs", learning_rate="cosine"), "learning_rate='cosine': solver='lbfgs'"),
    (dict(solver="lbfgs", weight_averaging=0.5), "weight_averaging: solver='lbfgs'"),
    (dict(weight_decay=0.1), "weight_decay is for solver='adamw'"),
    (dict(dropout=0.5, hidden_layer_sizes=()), "dropout: there are no hidden units"),
    (dict(learning_rate="one_cycle", warmup_epochs=1), "warmup_epochs: learning_rate='one_cycle'"),
    (dict(scoring="loss"), "scoring: there is nothing to score"),
    (dict(activation=("relu",), hidden_layer_sizes=(3, 3)), "one for each of the 2 hidden layers"),
    (dict(activation=("relu", "swish"), hidden_layer_sizes=(3, 3)), "got 'swish'"),
    (dict(callbacks=[3]), "callbacks: expected functions"),
]
VALUES = [
    dict(dropout=1.0), dict(dropout=-0.1), dict(activation="swish"), dict(solver="rmsprop"), dict(clip_norm=0.0),
    dict(weight_decay=-1.0), dict(warmup_epochs=-1), dict(decay_every=0), dict(decay_factor=1.5),
    dict(weight_averaging=1.0),
    dict(backend="torch"), dict(precision="int8"), dict(threads=0), dict(learning_rate="triangular"),
]  # fmt: skip


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize(("options", "message"), TOGETHER, ids=str)
def test_parameters_that_do_not_go_together(kind, options, message):
    X, y = data("iris")
    model = kind(**options)
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("options", VALUES, ids=str)
def test_impossible_values(kind, options):
    with pytest.raises(InvalidParameterError, match=next(iter(options))):
        kind(**options).fit(*data("iris"))


@pytest.mark.parametrize(
    ("kind", "name", "options", "message"),
    [
        (MLPClassifier, "iris", dict(loss="focal", label_smoothing=0.1), "label_smoothing: loss='focal'"),
        (MLPClassifier, "multilabel", dict(loss="focal"), "loss='focal' is for one label a row"),
        (MLPClassifier, "iris", dict(label_smoothing=2.0), "label_smoothing"),
        (MLPRegressor, "several targets", dict(loss="quantile", quantile=[0.1, 0.9]), "for one target; got 3"),
        (MLPRegressor, "diabetes", dict(loss="quantile", quantile=[0.1, 1.0]), "numbers between 0 and 1"),
        (MLPRegressor, "diabetes", dict(loss="poisson"), "no negative targets for loss='poisson'"),
        (MLPRegressor, "diabetes", dict(huber_delta=0.0), "huber_delta"),
    ],
    ids=str,
)
def test_losses_that_do_not_fit_the_data(kind, name, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options).fit(*data(name))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(early_stopping=True), r"partial_fit does not support early_stopping=True without validation_data"),
        (dict(learning_rate="cosine"), "its end is not known"),
        (dict(learning_rate="linear"), "its end is not known"),
        (dict(learning_rate="one_cycle"), "its end is not known"),
        (dict(weight_averaging=0.5), "weight_averaging: partial_fit"),
        (dict(class_weight="balanced"), "class_weight='balanced' needs all labels at once"),
    ],
    ids=str,
)
def test_partial_fit_refuses(options, message):
    X, y = data("iris")
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**options).partial_fit(X, y, classes=[0, 1, 2])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "validation_data: expected"),
        ((np.zeros((2, 4)),), "validation_data: expected"),
        ((np.zeros((2, 3)), [0, 1]), "3 features"),
        ((np.zeros((2, 4)), [0, 7]), "expected the classes of the training"),
        ((np.full((2, 4), np.nan), [0, 1]), "NaN"),
    ],
    ids=str,
)
def test_validation_data_that_cannot_be_used(given, message):
    X, y = data("iris")
    model = MLPClassifier()
    with pytest.raises(ValueError, match=message):
        model.fit(X, y, validation_data=given)
    assert not hasattr(model, "coefs_")


def test_lbfgs_takes_no_validation_data():
    X, y = data("iris")
    with pytest.raises(ValueError, match="validation_data: solver='lbfgs'"):
        MLPClassifier(solver="lbfgs").fit(X, y, validation_data=(X, y))


def test_a_batch_without_weight_is_refused():
    X, y = data("iris")
    weight = np.zeros(len(X))
    weight[0] = 1.0
    with pytest.raises(ValueError, match="the weights of a batch sum to 0"):
        MLPClassifier(batch_size=10).fit(X, y, weight)


def test_a_layer_of_no_units_is_refused():
    with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0"):
        MLPClassifier((3, 0)).fit(*data("iris"))


@pytest.mark.parametrize("precision", ["tf32", "float16"])
def test_a_precision_that_the_backend_does_not_have_is_refused(precision):
    model = MLPClassifier(precision=precision, backend="numpy")
    with pytest.raises(ValueError, match=f"cannot compute in {precision}"):
        model.fit(*data("iris"))
    assert not hasattr(model, "coefs_")
    with pytest.raises(ValueError, match="needs exact gradients"):
        MLPClassifier(precision=precision, solver="lbfgs").fit(*data("iris"))
