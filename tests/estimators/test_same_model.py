"""The same random_state gives scikit-learn's model: its losses, its scores, its weights."""

from functools import cache

import numpy as np
import pytest
import sklearn.neural_network as theirs

import fastmlp
from estimators.conftest import CLASSES, data

SOLVERS = {
    "plain": dict(solver="sgd", momentum=0.0),
    "momentum": dict(solver="sgd", nesterovs_momentum=False),
    "nesterov": dict(solver="sgd", learning_rate_init=0.02),
    "invscaling": dict(solver="sgd", learning_rate="invscaling", learning_rate_init=0.05),
    "adaptive": dict(solver="sgd", learning_rate="adaptive", tol=0.05, n_iter_no_change=2),
    "adam": dict(),
}
DATA = ("digits", "iris", "breast_cancer", "multilabel", "diabetes", "several targets")
CLOSE = {"float64": 1e-7, "float32": 1e-3}
SHARED = dict(hidden_layer_sizes=(20,), max_iter=30, random_state=11, batch_size=40)


@cache
def expected(name, solver, early_stopping, real, **options):
    kind = theirs.MLPClassifier if name in CLASSES else theirs.MLPRegressor
    X, y = data(name)
    return kind(**{**SHARED, **SOLVERS[solver], **options}, early_stopping=early_stopping).fit(X.astype(real), y)


def ours(backend, name, solver, early_stopping, real, **options):
    kind = fastmlp.MLPClassifier if name in CLASSES else fastmlp.MLPRegressor
    X, y = data(name)
    settings = {**SHARED, **SOLVERS[solver], **options, "backend": backend.name, "threads": 1}
    return kind(**settings, early_stopping=early_stopping).fit(X.astype(real), y)


def assert_same(got, want, real):
    close = CLOSE[real]
    np.testing.assert_allclose(got.loss_curve_, want.loss_curve_, rtol=close)
    assert (got.n_iter_, got.t_) == (want.n_iter_, want.t_)
    for mine, other in zip((*got.coefs_, *got.intercepts_), (*want.coefs_, *want.intercepts_), strict=True):
        assert mine.dtype == other.dtype == real
        np.testing.assert_allclose(mine, other, rtol=10 * close, atol=10 * close)
    if want.early_stopping:
        np.testing.assert_allclose(got.validation_scores_, want.validation_scores_, rtol=close, atol=close)


@pytest.mark.parametrize("early_stopping", [False, True], ids=["whole", "early"])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", DATA)
def test_losses_of_30_epochs(backend, name, solver, early_stopping, dtype):
    case = name, solver, early_stopping, dtype.name
    assert_same(ours(backend, *case), expected(*case), dtype.name)


@pytest.mark.parametrize(
    "options",
    [
        dict(activation="identity"), dict(activation="logistic"), dict(activation="tanh"), dict(hidden_layer_sizes=()),
        dict(hidden_layer_sizes=9), dict(hidden_layer_sizes=(12, 7, 5)),
        dict(shuffle=False), dict(batch_size="auto"), dict(batch_size=33), dict(alpha=0.0),
        dict(alpha=2.0), dict(beta_1=0.5, beta_2=0.9, epsilon=1e-3), dict(validation_fraction=0.3),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["digits", "diabetes"])
def test_every_parameter(backend, name, options):
    early = "validation_fraction" in options
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    case = name, "adam", early, "float64"
    assert_same(ours(backend, *case, **options), expected(*case, **options), "float64")


def test_poisson(backend):
    X, y = data("diabetes")
    y = np.exp(y).round()
    options = {**SHARED, "loss": "poisson", "learning_rate_init": 0.01}
    want = theirs.MLPRegressor(**options).fit(X, y)
    got = fastmlp.MLPRegressor(**options, backend=backend.name, threads=1).fit(X, y)
    assert_same(got, want, "float64")
    np.testing.assert_allclose(got.predict(X), want.predict(X), rtol=1e-6)
    assert got.out_activation_ == want.out_activation_ == "exp"


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "multilabel", "several targets"])
@pytest.mark.parametrize("early_stopping", [False, True], ids=["whole", "early"])
def test_sample_weights(backend, name, early_stopping):
    X, y = data(name)
    weight = np.random.default_rng(5).uniform(0, 3, len(X))
    weight[::7] = 0
    kind = "MLPClassifier" if name in CLASSES else "MLPRegressor"
    options = dict(SHARED, early_stopping=early_stopping, alpha=0.1)
    want = getattr(theirs, kind)(**options).fit(X, y, weight)
    got = getattr(fastmlp, kind)(**options, backend=backend.name, threads=1).fit(X, y, weight)
    assert_same(got, want, "float64")


def test_unscaled_columns_saturate_as_theirs_do(backend):
    # Their probabilities are kept from 0 and 1, which bounds the loss that they report: here by far.
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    want = theirs.MLPClassifier(**SHARED).fit(X, y)
    got = fastmlp.MLPClassifier(**SHARED, backend=backend.name, threads=1).fit(X, y)
    np.testing.assert_allclose(got.loss_curve_, want.loss_curve_, rtol=1e-3)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize("name", ["iris", "diabetes"])
def test_partial_fit(backend, name, solver):
    X, y = data(name)
    kind = "MLPClassifier" if name in CLASSES else "MLPRegressor"
    want = getattr(theirs, kind)(random_state=2, solver=solver)
    got = getattr(fastmlp, kind)(random_state=2, solver=solver, backend=backend.name, threads=1)
    classes = dict(classes=np.unique(y)) if name in CLASSES else {}
    for _ in range(5):
        want.partial_fit(X, y, **classes)
        got.partial_fit(X, y, **classes)
    assert_same(got, want, "float64")


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_warm_start(backend, solver):
    X, y = data("iris")
    options = dict(SHARED, solver=solver, warm_start=True, learning_rate="invscaling", max_iter=4)
    want, got = theirs.MLPClassifier(**options), fastmlp.MLPClassifier(**options, backend=backend.name, threads=1)
    for _ in range(3):
        want.fit(X, y)
        got.fit(X, y)
    assert len(got.loss_curve_) == 12
    assert_same(got, want, "float64")


def test_one_class_is_always_right(backend):
    X, _ = data("iris")
    options = dict(hidden_layer_sizes=(3,), max_iter=3, random_state=1, early_stopping=True)
    want, got = theirs.MLPClassifier(**options), fastmlp.MLPClassifier(**options, backend=backend.name)
    for model in (want, got):
        model.fit(X, np.full(len(X), "only"))
    assert (got.predict(X) == "only").all()
    assert got.validation_scores_ == want.validation_scores_ == [1.0, 1.0, 1.0]
    assert got.history_.train_accuracy == got.history_.validation_accuracy == [1.0, 1.0, 1.0]


def test_a_generator_is_drawn_from_as_they_do(backend):
    X, y = data("digits")
    ends = []
    for kind in (theirs.MLPClassifier, fastmlp.MLPClassifier):
        random = np.random.RandomState(8)
        options = {"backend": backend.name} if kind is fastmlp.MLPClassifier else {}
        kind((5,), max_iter=3, random_state=random, early_stopping=True, **options).fit(X, y)
        ends.append(random.randint(2**31))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "multilabel", "diabetes"])
def test_lbfgs_finds_as_good_a_minimum(backend, name):
    X, y = data(name)
    kind = "MLPClassifier" if name in CLASSES else "MLPRegressor"
    options = dict(hidden_layer_sizes=(6,), solver="lbfgs", random_state=1, max_iter=20, activation="tanh")
    want = getattr(theirs, kind)(**options).fit(X, y)
    got = getattr(fastmlp, kind)(**options, backend=backend.name, threads=1).fit(X, y)
    assert got.loss_ == pytest.approx(want.loss_, rel=1e-4)
    assert got.n_iter_ == want.n_iter_
    assert not hasattr(got, "loss_curve_")
