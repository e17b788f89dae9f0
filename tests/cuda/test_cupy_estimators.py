"""The estimators on the CuPy backend, over the stand-in for CuPy."""

from __future__ import annotations

import pickle

import fake_cupy
import numpy as np
import pytest
import scipy.sparse

from fastmlp import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(5)
X = RNG.standard_normal((90, 6))  # (N, I)
Y = X[:, :3].argmax(axis=1)  # (N,)
TARGETS = X[:, :2] * [1.0, -2.0] + X[:, 2:4]  # (N, 2)
WEIGHT = RNG.uniform(0.5, 2, len(X))  # (N,)


def fitted(kind, y, backend, fit=None, rows=X, **options):
    """An estimator after a few epochs."""
    options = {"max_iter": 5, "batch_size": 20, "random_state": 0, "hidden_layer_sizes": (8, 7), **options}
    return kind(backend=backend, **options).fit(rows, y, **(fit or {}))


CASES = {
    "plain": {},
    "sgd": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.1},
    "in order": {"shuffle": False},
    "early stopping": {"early_stopping": True, "max_iter": 12},
    "averaged": {"weight_averaging": 0.8},
    "clipped": {"clip_norm": 0.5},
    "adamw": {"solver": "adamw", "dropout": 0.3, "activation": ("gelu", "tanh")},
    "lbfgs": {"solver": "lbfgs", "max_iter": 20},
    "weighted": {"fit": {"sample_weight": WEIGHT}},
    "watched": {"fit": {"validation_data": (X[:30], Y[:30])}, "early_stopping": True, "scoring": "loss"},
    "focal": {"loss": "focal"},
    "balanced": {"class_weight": "balanced", "label_smoothing": 0.1},
}


@pytest.mark.parametrize("case", CASES)
def test_a_classifier_is_that_of_the_numpy_backend(case, cupy):
    expected, model = (fitted(MLPClassifier, Y, backend, **CASES[case]) for backend in ("numpy", "cupy"))
    same(model, expected, 1e-6)
    assert model.score(X, Y) == expected.score(X, Y)
    np.testing.assert_allclose(model.history_.validation_loss, expected.history_.validation_loss, rtol=1e-6)


@pytest.mark.parametrize("y", [Y > 0, np.stack([Y > 0, Y > 1], 1).astype(int)], ids=["two classes", "multilabel"])
def test_so_are_other_targets(y, cupy):
    same(*(fitted(MLPClassifier, y, backend) for backend in ("cupy", "numpy")), 1e-6)


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "absolute_error", "huber", "quantile"])
def test_so_is_a_regressor(loss, cupy):
    y = np.abs(TARGETS) if loss == "poisson" else TARGETS
    same(*(fitted(MLPRegressor, y, backend, loss=loss) for backend in ("cupy", "numpy")), 1e-6)


def test_sparse_rows_are_brought_over_step_by_step(cupy):
    rows = scipy.sparse.csr_array(np.where(X > 0, X, 0))
    models = [fitted(MLPClassifier, Y, backend, rows=rows) for backend in ("cupy", "numpy")]
    same(*models, 1e-6)
    np.testing.assert_allclose(models[0].predict_proba(rows), models[1].predict_proba(rows), rtol=1e-5)


def test_a_pickle_goes_on_where_the_fit_was(cupy):
    models = [fitted(MLPClassifier, Y, backend) for backend in ("cupy", "numpy")]
    for _ in range(2):
        for place, model in enumerate(models):
            models[place] = pickle.loads(pickle.dumps(model)).partial_fit(X, Y)
    same(*models, 1e-6)


def same(model, expected, rtol):
    """The model, on the emulated card, is the one that the CPU gives."""
    assert model._engine.backend.name == "cupy"
    assert model.n_iter_ == expected.n_iter_
    np.testing.assert_allclose(model.history_.train_loss, expected.history_.train_loss, rtol=rtol)
    for got, want in zip(model.coefs_ + model.intercepts_, expected.coefs_ + expected.intercepts_, strict=True):
        np.testing.assert_allclose(got, want, rtol=10 * rtol, atol=rtol)


@pytest.fixture
def uploaded(cupy, monkeypatch):
    """The shapes of the arrays that went from the host to the device, as they go."""
    from fastmlp.backends import cupy_data

    upload, shapes = cupy_data.upload, []
    monkeypatch.setattr(cupy_data, "upload", lambda array: (shapes.append(array.shape), upload(array))[1])
    return shapes


@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_on_the_gpu_stay_there(dtype, options, uploaded):
    given = fake_cupy.asarray(X.astype(dtype))
    expected = fitted(MLPClassifier, Y, "cupy", rows=X.astype(dtype), **options)
    uploaded.clear()
    for backend in ("cupy", "auto"):
        model = fitted(MLPClassifier, Y, backend, rows=given, **options)
        assert model.coefs_[0].dtype == dtype
        assert model.n_features_in_ == 6
        np.testing.assert_array_equal(model.predict(given), expected.predict(X.astype(dtype)))
        same(model, expected, 1e-6)
        if not options:
            model.partial_fit(given, Y)
    assert not [shape for shape in uploaded if shape[1:] == X.shape[1:]]


def test_on_a_cpu_backend_rows_on_the_gpu_come_to_the_host(cupy):
    given = fake_cupy.asarray(X)
    model = fitted(MLPClassifier, fake_cupy.asarray(Y), "numpy", rows=given)
    np.testing.assert_array_equal(model.predict(given), fitted(MLPClassifier, Y, "numpy").predict(X))
    restored = pickle.loads(pickle.dumps(fitted(MLPClassifier, Y, "auto", rows=given)))
    np.testing.assert_array_equal(restored.predict(given), restored.predict(X))  # on the CPU until it is fitted again
    assert restored._engine.backend.name == "numpy"


def test_rows_on_the_gpu_are_checked_there(cupy):
    bad = X.copy()
    bad[3, 2] = np.inf
    with pytest.raises(ValueError, match=r"X\[3, 2\] is inf"):
        fitted(MLPClassifier, Y, "cupy", rows=fake_cupy.asarray(bad))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        fitted(MLPClassifier, Y[:-1], "cupy", rows=fake_cupy.asarray(X))
    with pytest.raises(ValueError, match="expected a table"):
        fitted(MLPClassifier, Y, "cupy", rows=fake_cupy.asarray(X[:, 0]))
    model = fitted(MLPRegressor, TARGETS, "cupy", rows=fake_cupy.asarray(X))
    with pytest.raises(ValueError, match="X has 5 features, but MLPRegressor is expecting 6"):
        model.predict(fake_cupy.asarray(X[:, :5]))
    with pytest.raises(ValueError, match="X has 5 features, but MLPRegressor is expecting 6"):
        model.partial_fit(fake_cupy.asarray(X[:, :5]), TARGETS)
