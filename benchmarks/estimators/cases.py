"""What is fitted: data as users have them, and estimators with their defaults but for what a case names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers.jobs import ROWS, Source, images_name

LETTERS = Source("dense", 16_000, 16, 26)
GRID = {"hidden_layer_sizes": [(50,), (100,), (50, 50)], "alpha": [1e-4, 1e-2], "learning_rate_init": [1e-3, 1e-2]}
SHORT = {"tol": 0.0, "n_iter_no_change": 1_000}  # with max_iter: exactly so many epochs


class Case(NamedTuple):
    """One program."""

    title: str
    data: Callable[[int | None], tuple[Any, np.ndarray]]  # rows at most -> X (N, I), y (N,)
    options: Mapping[str, Any]  # of the estimator; random_state is 0
    estimator: str = "MLPClassifier"
    grid: Mapping[str, list[Any]] | None = None  # searched with n_jobs=2, 3 folds


def bundled(name: str, scale: Callable[[np.ndarray], np.ndarray]) -> Callable[[int | None], tuple[Any, np.ndarray]]:
    """A dataset of scikit-learn's, whole, its columns scaled."""

    def load(most: int | None) -> tuple[np.ndarray, np.ndarray]:
        import sklearn.datasets

        X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        return scale(X)[:most], y[:most]

    return load


def standardised(X: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and deviation 1."""
    return (X - X.mean(axis=0)) / X.std(axis=0)


def rows_of(source: Source) -> Callable[[int | None], tuple[np.ndarray, np.ndarray]]:
    """The float32 rows of the peers' comparison."""

    def load(most: int | None) -> tuple[np.ndarray, np.ndarray]:
        data = source._replace(rows=min(source.rows or ROWS, most or ROWS)).load()
        return data.x, data.y

    return load


@cache
def sparse(most: int | None) -> tuple[Any, np.ndarray]:
    """X (N, 10000) float32 CSR, 0.5 % of it not zero, as hashed words are; y (N,) of 10 classes by a linear map."""
    import scipy.sparse

    rng = np.random.default_rng(3)
    X = scipy.sparse.random(min(20_000, most or ROWS), 10_000, 0.005, "csr", np.float32, rng)
    return X, np.asarray(X @ rng.standard_normal((10_000, 10))).argmax(axis=1)


CASES = {
    "digits": Case("digits, 1,797 x 64, float64", bundled("digits", lambda X: X / 16), {}),
    "cancer": Case("breast cancer, 569 x 30, float64", bundled("breast_cancer", standardised), {}),
    "diabetes": Case("diabetes, 442 x 10, float64", bundled("diabetes", standardised), {}, "MLPRegressor"),
    "letters-200": Case("16,000 x 16, 26 classes, float32, batch 200, 20 epochs", rows_of(LETTERS),
                        {"max_iter": 20, **SHORT}),
    "letters-32": Case("16,000 x 16, 26 classes, float32, batch 32, 10 epochs", rows_of(LETTERS),
                       {"batch_size": 32, "max_iter": 10, **SHORT}),
    "images": Case(f"{images_name()}, 42,000 x 784, float32, batch 200, 5 epochs", rows_of(Source("images", ROWS)),
                   {"max_iter": 5, **SHORT}),
    "grid": Case("GridSearchCV, 12 candidates, digits, n_jobs=2, 3 folds, 20 epochs",
                 bundled("digits", lambda X: X / 16), {"max_iter": 20, **SHORT}, grid=GRID),
    "sparse": Case("CSR, 20,000 x 10,000, 0.5 % not zero, float32, 5 epochs", sparse, {"max_iter": 5, **SHORT}),
}  # fmt: skip
FIRST = ("digits", "letters-200")  # also fitted as the first thing a fresh process does
