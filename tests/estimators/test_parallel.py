"""Searches and predictions at the same time, in threads and in worker processes; see also `test_threads`."""

import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from estimators.conftest import data
from fastmlp.backends.threads import cores

GRID = {"alpha": [1e-4, 1e-1], "learning_rate_init": [1e-3, 1e-2]}


def most_threads(work, monkeypatch):
    """What `work` returns, and the most threads that our teams had at once meanwhile."""
    from fastmlp.backends import numba_learner, numba_plan, numba_team

    lock, now, most = threading.Lock(), [0], [0]
    run_team = numba_team.run_team

    def counted(threads, flop, member):
        with lock:
            now[0] += threads
            most[0] = max(most[0], now[0])
        try:
            return run_team(threads, flop, member)
        finally:
            with lock:
                now[0] -= threads

    for module in (numba_learner, numba_plan):
        monkeypatch.setattr(module, "run_team", counted)
    return work(), most[0]


def test_two_searches_at_once_give_the_scores_of_each_alone(classifier, monkeypatch):
    X, y = data("iris")

    def search():
        return GridSearchCV(classifier(threads=None), GRID, cv=3, refit=False).fit(X, y).cv_results_["mean_test_score"]

    def both():
        with ThreadPoolExecutor(2) as pool:
            return [future.result() for future in [pool.submit(search), pool.submit(search)]]

    alone = search()
    found, most = most_threads(both, monkeypatch)
    for scores in found:
        np.testing.assert_array_equal(scores, alone)
    assert most <= 2  # a fit takes one thread outside the main one


def test_a_search_in_worker_processes_gives_the_scores_of_one_here(classifier):
    X, y = data("iris")
    searches = [GridSearchCV(classifier(), GRID, cv=3, n_jobs=jobs, refit=False).fit(X, y) for jobs in (1, 2)]
    np.testing.assert_array_equal(*(search.cv_results_["mean_test_score"] for search in searches))


def threads_of(estimator, X, y):
    """Threads a fit keeps to, in whatever process it is, and those of BLAS libraries there."""
    estimator.fit(X, y)
    pools = [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]
    return getattr(estimator._engine.plan, "threads", 1), max(pools, default=1)


@pytest.mark.parametrize("kind", ["loky", "threading"])
def test_workers_share_the_cores(classifier, kind):
    """As many workers as cores: each fit takes one thread, unless told otherwise."""
    X, y = data("iris")
    jobs = cores() if kind == "loky" else 2
    work = joblib.Parallel(n_jobs=jobs, backend=kind)
    fits = work(joblib.delayed(threads_of)(classifier(threads=None), X, y) for _ in range(4))
    assert {threads for threads, _ in fits} == {1}
    if kind == "loky":
        assert {blas for _, blas in fits} == {1}


def test_one_estimator_predicts_in_several_threads(both):
    kind, X, y = both
    model = kind().fit(X, y)
    want = model.predict(X)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(model.predict, [X] * 12):
            np.testing.assert_array_equal(got, want)
