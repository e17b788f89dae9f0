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


@pytest.mark.parametrize("targets", [1, 3])
def test_validation_data_with_other_targets_than_the_training(regressor, targets):
    X, y = data("several targets")
    y = y[:, 0] if targets == 1 else y  # (N,) or (N, 3)
    with pytest.raises(ValueError, match=r"validation_data: expected y of shape \(160,.*, as in training; got \(160,"):
        regressor().fit(X, y, validation_data=(X, y.sum(axis=1) if targets == 3 else np.stack([y, y], axis=1)))


@pytest.mark.parametrize("way", ["partial_fit", "fit", "validation_data"])
def test_one_hot_rows_are_refused_where_the_network_tells_one_class_a_row(classifier, way):
    X, y = data("iris")
    one_hot = np.eye(3, dtype=int)[y]  # (N, 3)
    model = classifier(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match=r"y: expected one label a row, .* got an array of shape \(150, 3\)"):
        if way == "validation_data":
            model.fit(X, y, validation_data=(X, one_hot))
        else:
            getattr(model, way)(X, one_hot)


REFUSED = {
    "validation": lambda model, X, y: model.fit(X[:, :3], y + 10, validation_data=(X, y)),
    "split": lambda model, X, y: model.set_params(early_stopping=True, validation_fraction=0.0).fit(X[:3], y[:3] + 10),
    "scorer": lambda model, X, y: model.set_params(scoring="nonesuch").partial_fit(X, y, validation_data=(X, y)),
    "precision": lambda model, X, y: model.set_params(precision="tf32").fit(X, y + 10),
    "targets": lambda model, X, y: model.partial_fit(X, np.stack([y, y], axis=1)),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_fitted_estimator_stays_as_it_was_where_a_fit_is_refused(both, refused):
    make, X, y = both
    model, other = (make().fit(X, y) for _ in range(2))
    before = dict(vars(model))
    with pytest.raises(ValueError, match=r"."):
        REFUSED[refused](model, X, y)
    after = dict(vars(model))
    for name in model.get_params():
        del before[name], after[name]
    assert after == before
    model.set_params(**other.get_params())
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    for each in (model, other):  # the optimizer's state, too
        each.partial_fit(X, y)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))


def test_a_loss_that_predicts_by_another_function_than_the_fit_before(regressor):
    X, y = data("diabetes")
    model = regressor(loss="huber", warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="outputs pass through 'identity', as in the fit before; got 'poisson'"):
        model.set_params(loss="poisson").fit(X, y + 10)


def test_refused_classes_are_forgotten(classifier):
    X, y = data("iris")
    model = classifier()
    with pytest.raises(ValueError, match="has classes not in"):
        model.partial_fit(X, y, classes=[0, 1])
    model.partial_fit(X, y, classes=[0, 1, 2])
    assert model.predict_proba(X).shape == (150, 3)


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
