"""What scikit-learn's users rely on around a fit: types, attributes, warm starts, copies, messages, Ctrl-C."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn.neural_network as theirs
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from traced import peak

import fastmlp
from estimators.conftest import data
from fastmlp import loop

ATTRIBUTES = (
    "coefs_", "intercepts_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_", "n_iter_",
    "t_", "n_layers_", "n_outputs_", "out_activation_", "n_features_in_", "loss_",
)  # fmt: skip


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_their_parameters_with_their_defaults_come_in_their_order(name):
    ours = getattr(fastmlp, name)().get_params()
    for parameter, value in getattr(theirs, name)().get_params().items():
        assert ours[parameter] == value
    given = (0, "tanh") if name == "MLPClassifier" else ("poisson", 0, "tanh")
    assert vars(getattr(fastmlp, name)(*given))["activation"] == "tanh"


@pytest.mark.parametrize("early_stopping", [False, True])
def test_their_attributes_with_their_types(both, early_stopping):
    kind, X, y = both
    got = kind(early_stopping=early_stopping).fit(X, y)
    name = type(got).__name__
    want = getattr(theirs, name)(
        hidden_layer_sizes=(8,), max_iter=10, random_state=3, early_stopping=early_stopping
    ).fit(X, y)
    public = {attribute for attribute in vars(want) if attribute.endswith("_") and not attribute.startswith("_")}
    assert public >= set(ATTRIBUTES)
    for attribute in public:
        mine, other = getattr(got, attribute), getattr(want, attribute)
        assert isinstance(other, type(mine)), attribute
        if not isinstance(mine, list | np.ndarray):
            assert mine == pytest.approx(other), attribute


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # theirs takes the logarithm of 0
@pytest.mark.parametrize("name", ["iris", "breast_cancer", "multilabel"])
def test_predictions_are_theirs(backend, name, dtype):
    X, y = data(name)
    X = X.astype(dtype)
    want = theirs.MLPClassifier((8,), max_iter=20, random_state=0, learning_rate_init=0.01).fit(X, y)
    got = fastmlp.MLPClassifier((8,), max_iter=20, random_state=0, learning_rate_init=0.01, backend=backend.name)
    got.fit(X, y)
    close = dict(rtol=1e-6, atol=1e-9) if dtype == np.float64 else dict(rtol=1e-2, atol=1e-4)
    for method in ("predict_proba", "predict_log_proba"):
        mine, other = getattr(got, method)(X), getattr(want, method)(X)
        assert mine.dtype == other.dtype == dtype
        np.testing.assert_allclose(mine, other, **close)
    mine, other = got.predict(X), want.predict(X)
    assert mine.dtype == other.dtype
    np.testing.assert_array_equal(mine, other)
    assert got.score(X, y) == want.score(X, y)


@pytest.mark.parametrize("labels", [["b", "a", "c"], [True, False, False], [3.5, 1.0, 2.0], [7, -1, 10]], ids=str)
def test_labels_come_back_as_they_were_given(classifier, labels):
    X, codes = data("iris")
    y = np.array(labels)[codes]
    if y.dtype == float:
        y = y.round()
    model = classifier(max_iter=100, learning_rate_init=0.05).fit(X, y)
    assert model.predict(X).dtype == y.dtype
    assert list(model.classes_) == sorted(set(y.tolist()))
    assert model.score(X, y) > 0.8


def test_one_class_is_always_predicted(classifier):
    model = classifier().fit([[1.0], [2.0], [3.0]], ["a", "a", "a"])
    assert list(model.predict([[5.0], [6.0]])) == ["a", "a"]


@pytest.mark.parametrize("layout", [scipy.sparse.csr_matrix, scipy.sparse.csr_array, scipy.sparse.csc_matrix])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_sparse_rows_give_the_same_model(both, layout, early_stopping):
    kind, X, y = both
    X = np.where(np.abs(X) < 0.5, 0.0, X)
    options = dict(early_stopping=early_stopping, batch_size=50, learning_rate_init=0.01)
    dense, sparse = kind(**options).fit(X, y), kind(**options).fit(layout(X), y)
    np.testing.assert_allclose(dense.loss_curve_, sparse.loss_curve_, rtol=1e-9)
    np.testing.assert_allclose(dense.predict(X), sparse.predict(layout(X)), rtol=1e-6)


def test_sparse_rows_are_never_made_dense_whole(backend):
    columns = np.random.default_rng(0).integers(0, 20_000, 2000 * 20)
    X = scipy.sparse.csr_matrix((np.ones(40_000), columns, np.arange(0, 40_001, 20)), (2000, 20_000))
    model = fastmlp.MLPClassifier((4,), max_iter=1, backend=backend.name, threads=1, batch_size=50)
    assert peak(lambda: model.fit(X, np.arange(2000) % 2).predict(X)) < 2000 * 20_000 * 8 / 2


def test_a_sparse_indicator_matrix_comes_back_sparse(classifier):
    X, y = data("multilabel")
    model = classifier().fit(X, scipy.sparse.csr_matrix(y))
    predicted = model.predict(X)
    assert scipy.sparse.issparse(predicted)
    np.testing.assert_array_equal(predicted.toarray(), classifier().fit(X, y).predict(X))


def test_data_and_parameters_stay_as_they_were(both):
    kind, X, y = both
    before, model = (X.copy(), y.copy()), kind(early_stopping=True)
    parameters = model.get_params()
    model.fit(X, y).predict(X)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(y, before[1])
    assert model.get_params() == parameters


def test_a_new_fit_leaves_the_old_weights_alone(both):
    kind, X, y = both
    model = kind().fit(X, y)
    old = model.coefs_
    kept = [W.copy() for W in old]
    model.set_params(random_state=9).fit(X, y)
    for W, before in zip(old, kept, strict=True):
        np.testing.assert_array_equal(W, before)


def test_weights_put_in_by_hand_are_used(both):
    kind, X, y = both
    model, other = kind().fit(X, y), kind(random_state=77).fit(X, y)
    model.coefs_ = [W.copy() for W in other.coefs_]
    model.intercepts_ = [b.copy() for b in other.intercepts_]
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    model.coefs_[0][:] = 0
    model.intercepts_[0][:] = 0
    assert len(np.unique(model.predict(X))) == 1


@pytest.mark.parametrize("copied", [lambda m: pickle.loads(pickle.dumps(m)), copy.deepcopy], ids=["pickle", "deepcopy"])
def test_a_copy_predicts_and_goes_on_as_the_original(both, copied):
    kind, X, y = both
    model = kind(warm_start=True, solver="adam").fit(X, y)
    other = copied(model)
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    for each in (model, other):
        for _ in range(3):
            each.partial_fit(X, y)
    np.testing.assert_allclose(model.coefs_[0], other.coefs_[0], rtol=1e-12)
    assert other._optimizer.learner(other._engine).steps == model._optimizer.learner(model._engine).steps


def test_joblib_files_and_memory_maps(both, tmp_path):
    kind, X, y = both
    model = kind().fit(X, y)
    joblib.dump(model, tmp_path / "model")
    for mmap in (None, "r"):
        loaded = joblib.load(tmp_path / "model", mmap_mode=mmap)
        np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
        loaded.partial_fit(X, y)


def test_a_clone_is_not_fitted(both):
    kind, X, y = both
    other = clone(kind().fit(X, y))
    with pytest.raises(NotFittedError):
        other.predict(X)
    assert other.get_params() == kind().get_params()


def test_in_pipelines(both):
    kind, X, y = both
    assert len(cross_val_score(make_pipeline(StandardScaler(), kind(max_iter=2)), X, y, cv=2)) == 2


def test_in_a_search_on_worker_processes(classifier):
    X, y = data("iris")
    search = GridSearchCV(classifier(max_iter=2), {"alpha": [0.1, 1.0]}, cv=2, n_jobs=2).fit(X, y)
    assert search.best_estimator_.predict(X).shape == y.shape


def test_names_of_columns_are_kept_and_checked(both):
    pandas = pytest.importorskip("pandas")
    kind, X, y = both
    frame = pandas.DataFrame(X, columns=[f"column {i}" for i in range(X.shape[1])])
    model = kind(early_stopping=True).fit(frame, y)
    assert list(model.feature_names_in_) == list(frame.columns)
    model.predict(frame)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"column 0": "another"}))


def test_polars_frames(both):
    polars = pytest.importorskip("polars")
    kind, X, y = both
    frame = polars.DataFrame(X, schema=[f"column {i}" for i in range(X.shape[1])])
    model = kind().fit(frame, polars.Series(y))
    np.testing.assert_array_equal(model.predict(frame), kind().fit(X, y).predict(X))


def test_verbose_prints_as_theirs(both, capsys):
    kind, X, y = both
    said = []
    options = dict(early_stopping=True, n_iter_no_change=1, tol=10.0, max_iter=30, verbose=True)
    model = kind(**options).fit(X, y)
    said.append(capsys.readouterr().out)
    getattr(theirs, type(model).__name__)(hidden_layer_sizes=(8,), random_state=3, **options).fit(X, y)
    said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "Stopping." in said[0]


def test_verbose_prints_a_lower_rate_as_theirs(classifier, capsys):
    X, y = data("iris")
    options = dict(solver="sgd", learning_rate="adaptive", n_iter_no_change=1, tol=10.0, max_iter=40, verbose=True)
    classifier(**options).fit(X, y)
    ours = capsys.readouterr().out
    theirs.MLPClassifier((8,), random_state=3, **options).fit(X, y)
    assert ours == capsys.readouterr().out
    assert "Setting learning rate to" in ours


@pytest.mark.parametrize("way", ["whole list", "one array"])
def test_weights_put_in_place_of_the_own_count(both, way):
    kind, X, y = both
    model, other = kind(max_iter=2).fit(X, y), kind(random_state=8, max_iter=2).fit(X, y)
    theirs = [W.copy() for W in other.coefs_], [b.copy() for b in other.intercepts_]
    if way == "whole list":
        model.coefs_, model.intercepts_ = theirs
    else:
        model.coefs_[:], model.intercepts_[:] = theirs
    np.testing.assert_array_equal(model.predict(X), other.predict(X))
    before = model.coefs_[0].copy()
    model.partial_fit(X, y)
    assert (model.coefs_[0] != before).any()  # what was learned stays, after a prediction too
    learned = model.coefs_[0].copy()
    model.predict(X)
    np.testing.assert_array_equal(model._engine.coefs[0], learned)


@pytest.mark.filterwarnings("error")
def test_warnings(both):
    kind, X, y = both
    with pytest.warns(ConvergenceWarning, match=r"Maximum iterations \(10\) reached"):
        kind().fit(X, y)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge after 2 iteration"):
        kind(solver="lbfgs", max_iter=2).fit(X, y)
    with pytest.warns(UserWarning, match="larger than sample size"):
        kind(batch_size=10_000, n_iter_no_change=1, tol=10.0).fit(X, y)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_ctrl_c_keeps_the_model(both, early_stopping, monkeypatch):
    kind, X, y = both
    epochs = []

    def stop(model):
        epochs.append(model.n_iter_)
        if len(epochs) == 3:
            raise KeyboardInterrupt

    model = kind(early_stopping=early_stopping, callbacks=stop)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, y)
    assert model.n_iter_ == 3
    assert np.isfinite(model.predict(X).astype(float)).all()


def test_two_threads_predict_on_one_model(both):
    kind, X, y = both
    model = kind().fit(X, y)
    want = model.predict(X)

    def right(_):
        return all(np.array_equal(model.predict(X), want) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(4)))


def test_the_loop_is_the_one_that_train_uses(both, monkeypatch):
    kind, X, y = both
    calls = []
    real = loop.run_epochs
    for module in (fastmlp.training, __import__("fastmlp.estimators.fitting", fromlist=["fitting"])):
        monkeypatch.setattr(module, "run_epochs", lambda *args: calls.append(1) or real(*args))
    kind().fit(X, y)
    fastmlp.train(X, np.arange(len(X)) % 2, epochs=1, backend="numpy", progress=False)
    assert len(calls) == 2


def test_changed_layers_are_refused_on_a_warm_start(both):
    kind, X, y = both
    model = kind(warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="expected layers of"):
        model.set_params(hidden_layer_sizes=(9,)).fit(X, y)


def test_predict_before_fit_is_refused(both):
    kind, X, _ = both
    with pytest.raises(NotFittedError):
        kind().predict(X)


class Shared:
    """An array that can be had by DLPack only."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries_by_dlpack(both):
    kind, X, y = both
    model = kind().fit(Shared(X), Shared(y), validation_data=(Shared(X), Shared(y)))
    np.testing.assert_array_equal(model.predict(Shared(X)), kind().fit(X, y).predict(X))
