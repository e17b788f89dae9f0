"""To scikit-learn's classes, back, and to ONNX: the predictions stay."""

import numpy as np
import pytest
import sklearn.neural_network as theirs

from estimators.conftest import data
from fastmlp import MLPClassifier, MLPRegressor
from fastmlp.activations import ACTIVATIONS

SMALL = dict(hidden_layer_sizes=(6, 5), max_iter=20, random_state=0, backend="numpy", learning_rate_init=0.01)
FITS = {
    "classes": (MLPClassifier, "iris", {}),
    "two classes": (MLPClassifier, "breast_cancer", {}),
    "text": (MLPClassifier, "text", {}),
    "focal": (MLPClassifier, "breast_cancer", dict(loss="focal")),
    "labels": (MLPClassifier, "multilabel", {}),
    "one number": (MLPRegressor, "diabetes", {}),
    "several": (MLPRegressor, "several targets", {}),
    "counts": (MLPRegressor, "counts", dict(loss="poisson")),
    "quantiles": (MLPRegressor, "diabetes", dict(loss="quantile", quantile=(0.1, 0.9))),
}


def fitted(case, **options):
    kind, name, own = FITS[case]
    X, y = data({"text": "iris", "counts": "diabetes"}.get(name, name))
    y = np.array(["a", "bb", "c"], object)[y] if name == "text" else np.exp(y).round() if name == "counts" else y
    return kind(**SMALL, **own, **options).fit(X, y), X, y


@pytest.mark.parametrize("case", FITS)
def test_to_scikit_learn_and_back(case):
    model, X, y = fitted(case)
    other = model.to_sklearn()
    assert type(other) is getattr(theirs, type(model).__name__)
    np.testing.assert_allclose(other.coefs_[0], model.coefs_[0])
    back = type(model).from_sklearn(other, backend="numpy", **FITS[case][2])
    for each in (other, back):
        if "Regressor" in type(model).__name__:
            np.testing.assert_allclose(each.predict(X), model.predict(X), rtol=1e-9)
        else:
            np.testing.assert_array_equal(each.predict(X), model.predict(X))
            np.testing.assert_allclose(each.predict_proba(X), model.predict_proba(X), rtol=1e-9)
    other.coefs_[0][:] = 0
    assert model.coefs_[0].any()
    back.partial_fit(X, y)


def test_a_model_of_theirs_goes_on_here():
    X, y = data("iris")
    model = MLPClassifier.from_sklearn(theirs.MLPClassifier(max_iter=5, random_state=1).fit(X, y), warm_start=True)
    before = model.score(X, y)
    assert model.set_params(max_iter=60).fit(X, y).score(X, y) > before
    assert len(model.loss_curve_) == 65


@pytest.mark.parametrize("activation", ["gelu", ("tanh", "relu")])
def test_activations_that_they_do_not_have_are_refused(activation):
    with pytest.raises(ValueError, match="to_sklearn: scikit-learn has identity"):
        fitted("classes", activation=activation)[0].to_sklearn()


def test_another_kind_of_model_is_refused():
    with pytest.raises(ValueError, match="expected a fitted MLPClassifier"):
        MLPClassifier.from_sklearn(fitted("one number")[0].to_sklearn())


def run_onnx(model, X):
    """What onnxruntime makes of X, by name of the output."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    made = model.to_onnx()
    onnx.checker.check_model(made, full_check=True)
    session = runtime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"X": X.astype(model.coefs_[0].dtype)}), strict=True))


@pytest.mark.parametrize("case", FITS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_onnx_predicts_the_same(case, precision):
    model, X, _ = fitted(case, precision=precision)
    got = run_onnx(model, X)
    close = dict(rtol=1e-4, atol=1e-5) if precision == "float32" else dict(rtol=1e-9, atol=1e-12)
    if "y" in got:
        assert got["y"].shape == model.predict(X).shape
        np.testing.assert_allclose(got["y"], model.predict(X), **close)
    else:
        np.testing.assert_allclose(got["probabilities"], model.predict_proba(X), **close)
        np.testing.assert_array_equal(got["label"], model.predict(X))


@pytest.mark.parametrize("activation", [*ACTIVATIONS, ("gelu", "silu")], ids=str)
def test_onnx_has_every_activation(activation):
    model, X, _ = fitted("classes", activation=activation, precision="float32")
    np.testing.assert_allclose(run_onnx(model, X)["probabilities"], model.predict_proba(X), rtol=1e-4, atol=1e-5)


def test_onnx_without_the_package_says_what_to_install(monkeypatch):
    import sys

    model = fitted("classes")[0]
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'fastmlp\[onnx\]'"):
        model.to_onnx()
