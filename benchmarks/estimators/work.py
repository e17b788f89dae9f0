"""What a library's process does: it fits a case, and says what came out."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from benchmarks.peers.work import Reading

from .cases import CASES, LETTERS

NETS, EPOCHS = 32, 5
MANY, ROW = "train_many", "one fit after another"


class Fitted(NamedTuple):
    """What a fit left behind."""

    losses: list[float]  # of each epoch; empty for a search
    scores: list[float]  # on the rows it was fitted on; of a search, the mean of each candidate over its folds
    dtype: str  # of the rows


class Library:
    """The module with MLPClassifier and MLPRegressor; `options` are for both, beside a case's own."""

    def __init__(self, module: str, options: Mapping[str, Any]):
        started = time.perf_counter()
        found = importlib.import_module(module)
        self.classes = {name: getattr(found, name) for name in ("MLPClassifier", "MLPRegressor")}  # imported when named
        self.import_seconds, self.options = time.perf_counter() - started, options

    def imported(self) -> float:
        """Seconds that importing the module took."""
        return self.import_seconds

    def open(self, case: str, most: int | None) -> None:
        """Make the data and the estimator, for `run` to fit clones of."""
        self.case = CASES[case]
        self.X, self.y = self.case.data(most)
        self.estimator = self.classes[self.case.estimator](random_state=0, **self.case.options, **self.options)
        if self.case.grid:
            from sklearn.model_selection import GridSearchCV

            self.estimator = GridSearchCV(self.estimator, dict(self.case.grid), n_jobs=2, cv=3, refit=False)

    def run(self, name: str, times: int = 1) -> Reading:
        """Time a fit from scratch, or several; seconds are of one."""
        from sklearn.base import clone
        from sklearn.exceptions import ConvergenceWarning

        models = [clone(self.estimator) for _ in range(times)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # cases with few epochs mean to stop early
            started = time.perf_counter()
            for model in models:
                model.fit(self.X, self.y)
            seconds = (time.perf_counter() - started) / times
        return Reading(seconds, None, self.fitted(models[-1]))

    def finish(self) -> None:
        """End the workers of a search; they would outlive this process, and keep its data."""
        if self.case.grid:
            from joblib.externals.loky import get_reusable_executor

            get_reusable_executor().shutdown(wait=True)

    def fitted(self, model: Any) -> Fitted:
        """What `run` hands back."""
        if self.case.grid:
            return Fitted([], model.cv_results_["mean_test_score"].tolist(), str(self.X.dtype))
        return Fitted(list(map(float, model.loss_curve_)), [float(model.score(self.X, self.y))], str(self.X.dtype))


class Nets:
    """Many small nets on the same rows, in fastmlp: side by side, and one fit after another."""

    def __init__(self, most: int | None, threads: int):
        import fastmlp

        self.fastmlp, self.threads = fastmlp, threads
        data = LETTERS._replace(rows=min(LETTERS.rows or 0, most or 16_000)).load()
        self.X, self.y = data.x, data.y
        self.configs = [
            {"hidden": (100,), "optimizer": "adam", "batch_size": 200, "epochs": EPOCHS, "seed": seed}
            for seed in range(NETS)
        ]

    def run(self, name: str, times: int = 1) -> Reading:
        """Time the training of all nets once; the outcome is the parameters of each (nets, P)."""
        started = time.perf_counter()
        models = self.side_by_side() if name == MANY else self.in_a_row()
        seconds = time.perf_counter() - started
        return Reading(seconds, None, np.stack([model.parameters for model in models]))

    def side_by_side(self) -> list[Any]:
        """By one call."""
        return list(self.fastmlp.train_many(self.X, self.y, self.configs, threads=self.threads, progress=False))

    def in_a_row(self) -> list[Any]:
        """By a call for each, on all threads."""
        return [
            self.fastmlp.train(self.X, self.y, threads=self.threads, progress=False, **config)
            for config in self.configs
        ]
