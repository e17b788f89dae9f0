"""What goes beyond scikit-learn: each option changes what it should, and its gradient is the loss's."""

import numpy as np
import pytest
from sklearn.metrics import get_scorer, log_loss
from sklearn.utils.class_weight import compute_sample_weight
from tolerance import assert_close

from estimators.conftest import data
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.schedules import Schedule


def weights(model):
    return np.concatenate([part.ravel() for part in (*model.coefs_, *model.intercepts_)])


# What enters the loss: against central differences.

ACTIVATIONS = ["leaky_relu", "elu", "gelu", "silu", ("tanh", "gelu"), ("relu", "identity")]
LOSSES = [
    (MLPClassifier, "iris", dict(label_smoothing=0.2)),
    (MLPClassifier, "breast_cancer", dict(label_smoothing=0.2)),
    (MLPClassifier, "multilabel", dict(label_smoothing=0.2)),
    (MLPClassifier, "iris", dict(loss="focal", focal_gamma=1.5)),
    (MLPClassifier, "breast_cancer", dict(loss="focal")),
    (MLPClassifier, "iris", dict(class_weight="balanced")),
    (MLPRegressor, "diabetes", dict(loss="huber", huber_delta=0.7)),
    (MLPRegressor, "several targets", dict(loss="huber")),
    (MLPRegressor, "diabetes", dict(loss="absolute_error")),
    (MLPRegressor, "diabetes", dict(loss="quantile", quantile=0.8)),
    (MLPRegressor, "diabetes", dict(loss="quantile", quantile=[0.1, 0.5, 0.9])),
    (MLPRegressor, "diabetes", dict(loss="poisson")),
    (MLPRegressor, "several targets", dict(loss="squared_error")),
]


def assert_gradient(model, X, y):
    """lbfgs's loss and gradient at the model's weights, against differences of the loss."""
    seen = []

    def minimise(function, x, **_):
        loss, g = function(x)
        places = np.random.default_rng(0).choice(len(x), 12, replace=False)
        for place in places:
            step = np.zeros_like(x)
            step[place] = 1e-6
            slope = (function(x + step)[0] - function(x - step)[0]) / 2e-6
            seen.append((g[place], slope))
        function(x)
        return type("Found", (), dict(x=x, fun=loss, nit=1, status=0, message=""))()

    import fastmlp.estimators.lbfgs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fastmlp.estimators.lbfgs, "minimize", minimise)
        model.set_params(solver="lbfgs").fit(X, y)
    got, want = map(np.array, zip(*seen, strict=True))
    assert np.abs(want).max() > 1e-4
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_gradient_of_activations(backend, activation):
    X, y = data("iris")
    hidden = (5, 4)
    assert_gradient(MLPClassifier(hidden, activation, alpha=0.3, random_state=0, backend=backend.name), X[::5], y[::5])


@pytest.mark.parametrize(("kind", "name", "options"), LOSSES, ids=str)
def test_gradient_of_losses(backend, kind, name, options):
    X, y = data(name)
    y = np.exp(y).round() if options.get("loss") == "poisson" else y
    model = kind(hidden_layer_sizes=(5,), activation="tanh", alpha=0.3, random_state=0, backend=backend.name, **options)
    assert_gradient(model, X[::7], y[::7])


def test_an_activation_a_layer_is_what_predicts(classifier):
    X, y = data("iris")
    model = classifier(hidden_layer_sizes=(6, 5), activation=("leaky_relu", "tanh")).fit(X, y)
    a = X @ model.coefs_[0] + model.intercepts_[0]
    a = np.tanh(np.where(a > 0, a, 0.01 * a) @ model.coefs_[1] + model.intercepts_[1])
    z = a @ model.coefs_[2] + model.intercepts_[2]
    p = np.exp(z - z.max(axis=1, keepdims=True))
    np.testing.assert_allclose(model.predict_proba(X), p / p.sum(axis=1, keepdims=True), rtol=1e-9)


def test_one_activation_for_all_is_one_for_each(classifier):
    X, y = data("iris")
    one, each = (
        classifier(hidden_layer_sizes=(6, 5), activation=names).fit(X, y) for names in ("tanh", ["tanh", "tanh"])
    )
    np.testing.assert_array_equal(weights(one), weights(each))


# Losses, by what they are for.


def test_label_smoothing_pulls_in_probabilities(classifier):
    X, y = data("iris")
    sharp, smooth = (classifier(max_iter=200, learning_rate_init=0.02, label_smoothing=s).fit(X, y) for s in (0, 0.3))
    assert smooth.predict_proba(X).max() < 0.95 < 0.999 < sharp.predict_proba(X).max()


def test_focal_loss_of_gamma_nearly_0_is_log_loss(classifier):
    X, y = data("iris")
    plain, focal = classifier().fit(X, y), classifier(loss="focal", focal_gamma=1e-9).fit(X, y)
    np.testing.assert_allclose(plain.loss_curve_, focal.loss_curve_, rtol=1e-6)


def test_focal_loss_of_two_classes(classifier):
    X, y = data("breast_cancer")
    model = classifier(loss="focal", max_iter=60).fit(X, y)
    assert model.out_activation_ == "softmax"
    assert model.score(X, y) > 0.9


@pytest.mark.parametrize("name", ["iris", "breast_cancer", "multilabel"])
def test_class_weights_are_sample_weights(classifier, name):
    X, y = (part[20:] for part in data(name))  # classes of unequal size
    given = "balanced" if y.ndim == 1 else [{0: 1.0, 1: 2.0 + o} for o in range(y.shape[1])]
    own = np.random.default_rng(0).uniform(1, 2, len(X))
    got = classifier(class_weight=given).fit(X, y, own)
    want = classifier().fit(X, y, own * compute_sample_weight(given, y))
    np.testing.assert_array_equal(weights(got), weights(want))
    assert not np.array_equal(weights(got), weights(classifier().fit(X, y, own)))


def test_class_weights_as_a_dict_in_partial_fit(classifier):
    X, y = data("iris")
    got = classifier(class_weight={0: 5.0}).partial_fit(X, y, classes=[0, 1, 2])
    want = classifier().partial_fit(X, y, np.where(y == 0, 5.0, 1.0), classes=[0, 1, 2])
    np.testing.assert_array_equal(weights(got), weights(want))


def test_quantiles_hold_their_shares(regressor):
    X, y = data("diabetes")
    shares = (0.1, 0.5, 0.9)
    model = regressor(loss="quantile", quantile=shares, max_iter=200, learning_rate_init=0.01).fit(X, y)
    predicted = model.predict(X)
    assert predicted.shape == (len(X), 3)
    np.testing.assert_allclose((y[:, None] < predicted).mean(axis=0), shares, atol=0.06)
    assert 0 < model.score(X, y) < 1
    one = regressor(loss="quantile", quantile=0.9, max_iter=200, learning_rate_init=0.01).fit(X, y)
    assert one.predict(X).shape == y.shape
    assert (y < one.predict(X)).mean() == pytest.approx(0.9, abs=0.06)


def test_one_quantile_of_several_targets(regressor):
    X, y = data("several targets")
    model = regressor(loss="quantile", quantile=0.8, max_iter=200, learning_rate_init=0.01).fit(X, y)
    np.testing.assert_allclose((y < model.predict(X)).mean(axis=0), 0.8, atol=0.06)


@pytest.mark.parametrize("loss", ["huber", "absolute_error"])
def test_robust_losses_do_not_follow_an_outlier(regressor, loss):
    X, y = data("diabetes")
    spoilt = y.copy()
    spoilt[::20] += 100
    options = dict(max_iter=150, learning_rate_init=0.01)
    robust, plain = regressor(loss=loss, **options).fit(X, spoilt), regressor(**options).fit(X, spoilt)
    assert np.abs(robust.predict(X) - y).mean() < np.abs(plain.predict(X) - y).mean() / 2


# Steps.


def test_weight_decay_is_apart_from_the_gradient(classifier):
    X, y = data("iris")
    options = dict(solver="adamw", max_iter=1, batch_size=len(X), alpha=0.0, learning_rate_init=0.1)
    without, decayed = (classifier(weight_decay=d, **options).fit(X, y) for d in (0.0, 0.5))
    start = classifier(solver="sgd", max_iter=1, batch_size=len(X), alpha=0.0, learning_rate_init=1e-300).fit(X, y)
    for W, D, S in zip(without.coefs_, decayed.coefs_, start.coefs_, strict=True):
        np.testing.assert_allclose(W - D, 0.1 * 0.5 * S, rtol=1e-9, atol=1e-12)
    for b, d in zip(without.intercepts_, decayed.intercepts_, strict=True):
        np.testing.assert_array_equal(b, d)
    adam = classifier(max_iter=1, batch_size=len(X), alpha=0.0, learning_rate_init=0.1).fit(X, y)
    np.testing.assert_array_equal(weights(adam), weights(without))
    default = classifier(**options).fit(X, y)
    np.testing.assert_allclose(without.coefs_[0] - default.coefs_[0], 0.1 * 0.01 * start.coefs_[0], atol=1e-12)


def test_clipping_bounds_a_step(both):
    kind, X, y = both
    options = dict(solver="sgd", momentum=0.0, alpha=0.0, max_iter=1, batch_size=len(X))
    start = weights(kind(learning_rate_init=1e-300, **options).fit(X, y))
    moved = [
        np.linalg.norm(weights(kind(clip_norm=clip, learning_rate_init=0.5, **options).fit(X, y)) - start)
        for clip in (None, 1e-3, 1e6)
    ]
    assert moved[0] == moved[2] > moved[1] == pytest.approx(0.5e-3, rel=1e-6)


def test_dropout_leaves_out_in_training_only(both):
    kind, X, y = both
    options = dict(hidden_layer_sizes=(40,), max_iter=5)
    plain, dropped = kind(**options).fit(X, y), kind(dropout=0.5, **options).fit(X, y)
    assert not np.array_equal(weights(plain), weights(dropped))
    np.testing.assert_array_equal(weights(kind(dropout=0.5, **options).fit(X, y)), weights(dropped))
    np.testing.assert_array_equal(dropped.predict(X), dropped.predict(X))
    other = kind(dropout=0.5, **{**options, "random_state": 4}).fit(X, y)
    assert not np.array_equal(weights(other), weights(dropped))


@pytest.mark.parametrize("kind", ["linear", "cosine", "one_cycle", "step", "warm"])
def test_schedules(kind):
    steps, epochs = 5, 40
    schedule = Schedule(
        "constant" if kind == "warm" else kind, 0.2, epochs, warmup_epochs=4 * (kind == "warm"), decay_every=10,
        decay_factor=0.5,
    )  # fmt: skip
    rates = []
    for _ in range(epochs):
        rates.extend(schedule.rates(steps))
        schedule.epoch_ends(0)
    rates, p = np.array(rates), np.arange(200) / 200
    if kind == "cosine":
        np.testing.assert_allclose(rates, 0.1 * (1 + np.cos(np.pi * p)))
    elif kind == "linear":
        np.testing.assert_allclose(rates, 0.2 * (1 - p))
    elif kind == "step":
        np.testing.assert_allclose(rates, 0.2 * 0.5 ** (np.arange(200) // 50))
    elif kind == "warm":
        np.testing.assert_allclose(rates, 0.2 * np.minimum(1, (np.arange(200) + 1) / 20))
    else:
        assert rates.argmax() == 60
        assert rates[0] == pytest.approx(0.2 / 25)
        assert rates.max() == pytest.approx(0.2)
        assert rates[-1] < 0.001
        assert (np.diff(rates[:61]) > 0).all()
        assert (np.diff(rates[60:]) < 0).all()


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("options", [dict(learning_rate=k) for k in ("linear", "cosine", "one_cycle", "step")] + [
    dict(warmup_epochs=2.5)], ids=str)  # fmt: skip
def test_schedules_reach_the_steps(classifier, solver, options):
    X, y = data("iris")
    options = {"solver": solver, "decay_every": 2, **options}
    assert not np.array_equal(weights(classifier(solver=solver).fit(X, y)), weights(classifier(**options).fit(X, y)))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_rare_class_has_its_share_of_the_rows_held_out(classifier, smoothing):
    X, _ = data("iris")
    seen = []

    def score(model, X, y):
        seen.append(y)
        return 0.0

    for seed in range(3):
        model = classifier(label_smoothing=smoothing, early_stopping=True, scoring=score, random_state=seed, max_iter=1)
        model.fit(X, np.arange(150) < 20)
    assert [held_out.sum() for held_out in seen] == [2, 2, 2]


def test_a_halved_rate_takes_half_a_step(classifier):
    X, y = data("iris")
    options = dict(solver="sgd", momentum=0.0, max_iter=1, batch_size=len(X))
    start = weights(classifier(learning_rate_init=1e-300, **options).fit(X, y))
    full, half = (weights(classifier(warmup_epochs=w, **options).fit(X, y)) - start for w in (0, 2))
    np.testing.assert_allclose(2 * half, full, rtol=1e-9, atol=1e-15)


def test_averaged_weights(both):
    kind, X, y = both
    seen = []
    model = kind(weight_averaging=0.6, callbacks=lambda model: seen.append(weights(model).copy())).fit(X, y)
    factors = 0.6 ** np.arange(len(seen))[::-1]
    np.testing.assert_allclose(weights(model), np.average(seen, axis=0, weights=factors), rtol=1e-12)
    plain = kind().fit(X, y)
    np.testing.assert_array_equal(weights(plain), seen[-1])  # the training itself is the same


# Early stopping.


@pytest.mark.parametrize("scoring", ["loss", "neg_log_loss", "f1_macro", None, "callable"])
def test_early_stopping_on_any_score(classifier, scoring):
    X, y = data("iris")
    train, held_out = np.arange(len(X)) % 3 > 0, np.arange(len(X)) % 3 == 0
    own = X[held_out], y[held_out]
    score = (lambda m, X, y: -log_loss(y, m.predict_proba(X))) if scoring == "callable" else scoring
    kept = []
    model = classifier(
        early_stopping=True, scoring=score, max_iter=300, learning_rate_init=0.1, n_iter_no_change=5,
        callbacks=lambda m: kept.append(weights(m).copy()),
    ).fit(X[train], y[train], validation_data=own)  # fmt: skip
    assert 6 < model.n_iter_ < 300
    best = int(np.argmax(model.validation_scores_))
    np.testing.assert_array_equal(weights(model), kept[best])
    assert model.best_validation_score_ == model.validation_scores_[best]
    names = {"loss": "neg_log_loss", "callable": "neg_log_loss", None: "accuracy"}
    want = get_scorer(names.get(scoring, scoring))(model, *own)
    assert model.best_validation_score_ == pytest.approx(want)


def test_own_validation_rows_take_nothing_from_the_training(both):
    kind, X, y = both
    plain, watched = kind().fit(X, y), kind().fit(X, y, validation_data=(X[:50], y[:50]))
    np.testing.assert_array_equal(weights(plain), weights(watched))
    history = watched.history_
    assert len(history.validation_loss) == len(history.validation_score) == len(history) == 10
    assert history.validation_score[-1] == pytest.approx(watched.score(X[:50], y[:50]))
    assert plain.history_.validation_loss == []


def test_validation_weights_count(both):
    kind, X, y = both
    weight = np.random.default_rng(0).uniform(0, 3, 50)
    model = kind(early_stopping=True).fit(X, y, validation_data=(X[:50], y[:50], weight))
    assert model.best_validation_score_ == pytest.approx(model.score(X[:50], y[:50], weight))


def test_partial_fit_stops_and_restores_the_best(both):
    kind, X, y = both
    own = dict(validation_data=(X[::3], y[::3]))
    model = kind(early_stopping=True, n_iter_no_change=3, learning_rate_init=0.05, scoring="loss")
    classes = dict(classes=np.unique(y)) if "Classifier" in type(model).__name__ else {}
    kept = []
    while True:
        model.partial_fit(X, y, **classes, **own)
        if model.stopped_:
            break
        kept.append(weights(model).copy())
        assert len(kept) < 500
    best = int(np.argmax(model.validation_scores_))
    np.testing.assert_array_equal(weights(model), kept[best])


# What a fit tells.


def test_history_holds_every_epoch(both):
    kind, X, y = both
    model = kind(early_stopping=True).fit(X, y)
    history = model.history_
    assert history.train_loss == model.loss_curve_
    assert history.validation_score == model.validation_scores_
    assert len(history.seconds) == len(history.validation_loss) == model.n_iter_
    assert bool(history.train_accuracy) == ("Classifier" in type(model).__name__)
    pytest.importorskip("matplotlib")
    assert [axes.get_ylabel() for axes in history.plot().axes] == [
        "loss", "accuracy" if history.train_accuracy else "score"]  # fmt: skip


def test_callbacks_hear_of_everything_and_may_end_it(both):
    kind, X, y = both
    heard = []

    class Listener:
        def on_fit_begin(self, model):
            heard.append(("begin", model.n_iter_))

        def on_epoch_end(self, model):
            heard.append(("epoch", model.n_iter_, len(model.loss_curve_)))
            return model.n_iter_ == 3

        def on_fit_end(self, model):
            heard.append(("end", model.n_iter_))

    model = kind(callbacks=[Listener(), lambda m: heard.append(m.predict(X).shape)]).fit(X, y)
    epochs = [part for n in (1, 2, 3) for part in (("epoch", n, n), y.shape)]
    assert heard == [("begin", 0), *epochs, ("end", 3)]
    assert model.n_iter_ == 3


def test_progress_is_told_on_standard_error(both, capsys):
    kind, X, y = both
    kind(progress=True).fit(X, y)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 10
    assert err.startswith("epoch 1/10  loss ")
    kind().fit(X, y)
    assert capsys.readouterr() == ("", "")


# Where it runs.


def test_precision(both):
    kind, X, y = both
    model = kind(precision="float32").fit(X, y)
    assert {W.dtype for W in model.coefs_} == {np.dtype(np.float32)}
    same = kind().fit(X.astype(np.float32), y)
    assert_close(weights(model), weights(same), np.float32, "run")
    assert kind(precision="float64").fit(X.astype(np.float32), y).coefs_[0].dtype == np.float64


def test_backends_agree(backend):
    X, y = data("digits")
    curves = [
        MLPClassifier((8,), max_iter=5, random_state=0, backend=name).fit(X, y) for name in (backend.name, "numpy")
    ]
    assert_close(weights(curves[0]), weights(curves[1]), np.float64, "run")
    assert curves[0]._engine.backend is backend
