"""Fits at the same time: searches in threads, in processes, and fits inside a thread pool."""

import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from estimators.conftest import data
from fastmlp.backends.numba import cores

GRID = {"alpha": [1e-4, 1e-1], "learning_rate_init": [1e-3, 1e-2]}


def most_threads(work, monkeypatch):
    """What `work` returns, and the most threads beyond today's that computed at once while it ran."""
    from fastmlp.backends import numba

    lock, now, most = threading.Lock(), [0], [0]
    run_team = numba.run_team

    def counted(threads, flop, member):
        with lock:
            now[0] += threads
            most[0] = max(most[0], now[0])
        try:
            return run_team(threads, flop, member)
        finally:
            with lock:
                now[0] -= threads

    monkeypatch.setattr(numba, "run_team", counted)
    return work(), most[0]


@pytest.mark.parametrize("threads", [1, None])
def test_two_searches_at_once_give_the_scores_of_each_alone(classifier, threads, monkeypatch):
    X, y = data("iris")

    def search(n_jobs=1):
        model = classifier(threads=threads)
        return GridSearchCV(model, GRID, cv=3, n_jobs=n_jobs, refit=False).fit(X, y).cv_results_["mean_test_score"]

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


def test_fits_in_a_thread_pool_are_those_of_the_main_thread(both, monkeypatch):
    kind, X, y = both

    def fit(seed):
        return kind(random_state=seed, threads=None).fit(X, y)

    alone = [kind(random_state=seed, threads=1).fit(X, y) for seed in range(6)]
    before = threading.active_count()

    def pooled():
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(fit, range(6)))

    models, most = most_threads(pooled, monkeypatch)
    for model, other in zip(models, alone, strict=True):
        assert model._engine.parameters.tobytes() == other._engine.parameters.tobytes()
        np.testing.assert_array_equal(model.predict(X), other.predict(X))
    assert most <= 3
    assert threading.active_count() == before


def test_one_estimator_predicts_in_several_threads(both):
    kind, X, y = both
    model = kind().fit(X, y)
    want = model.predict(X)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(model.predict, [X] * 12):
            np.testing.assert_array_equal(got, want)
