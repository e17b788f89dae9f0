"""Data that scikit-learn bundles, small and scaled, and the two classes with the backend under test."""

from functools import cache, partial

import numpy as np
import pytest
from sklearn import datasets
from sklearn.preprocessing import scale

from fastmlp import MLPClassifier, MLPRegressor


def pytest_collection_modifyitems(items):
    for item in items:  # tests end long before the training converges
        item.add_marker(pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"))


@cache
def data(name):
    """X (N, I) float64 of mean 0 and variance 1, and y, by the name of a data set."""
    if name == "multilabel":
        X, y = datasets.make_multilabel_classification(150, n_features=8, n_classes=4, random_state=0)
    elif name == "several targets":
        X, y = datasets.load_linnerud(return_X_y=True)
        return np.tile(scale(X), (8, 1)), np.tile(scale(y), (8, 1))
    else:
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    y = scale(y) if name == "diabetes" else y
    return scale(X)[:450], y[:450]


SMALL = dict(hidden_layer_sizes=(8,), max_iter=10, random_state=3, threads=1)
CLASSES = {"digits", "iris", "breast_cancer", "wine", "multilabel"}


@pytest.fixture
def classifier(backend):
    """MLPClassifier, small, on the backend under test."""
    return partial(MLPClassifier, **SMALL, backend=backend.name)


@pytest.fixture
def regressor(backend):
    """MLPRegressor, small, on the backend under test."""
    return partial(MLPRegressor, **SMALL, backend=backend.name)


@pytest.fixture(params=["classifier", "regressor"])
def both(request, classifier, regressor):
    """Each class in turn, with data for it: (class, X, y)."""
    return (classifier, *data("iris")) if request.param == "classifier" else (regressor, *data("diabetes"))
