"""Fits beside each other: in threads, in searches, in worker processes, and how many threads they take."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from running import running, settled
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from estimators.conftest import data
from fastmlp import backends
from fastmlp.backends.numpy import CHANGING
from fastmlp.estimators.engine import thread_limit


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_threads_where_none_were_asked_for(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert thread_limit(None) is None
    assert thread_limit(3) == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(thread_limit, None).result() == 1
        assert pool.submit(thread_limit, 3).result() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert thread_limit(None) == 2


def test_worker_processes_share_the_machine():
    limits = joblib.Parallel(n_jobs=2)(joblib.delayed(thread_limit)(None) for _ in range(2))
    assert limits == [max(1, joblib.cpu_count() // 2)] * 2


def test_fits_in_a_pool_are_the_fits_in_a_row(both):
    kind, X, y = both
    seen = []
    models = [
        kind(random_state=seed, threads=None, callbacks=lambda m: seen.append(m._engine.threads)) for seed in range(6)
    ]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda model: model.fit(X, y), models))
    assert set(seen) == {1}
    for seed, model in enumerate(together):
        np.testing.assert_array_equal(model.coefs_[0], kind(random_state=seed, threads=1).fit(X, y).coefs_[0])


def test_two_searches_at_once(classifier):
    X, y = data("iris")

    def search():
        with joblib.parallel_config("threading", n_jobs=2):
            return GridSearchCV(classifier(threads=None, max_iter=3), {"alpha": [0.1, 1.0]}, cv=2).fit(X, y)

    before = blas_threads()
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(search), pool.submit(search)
    np.testing.assert_array_equal(
        one.result().cv_results_["mean_test_score"], two.result().cv_results_["mean_test_score"]
    )
    assert blas_threads() == before


def test_the_threads_of_blas_come_back_whoever_ends_last():
    backend, before = backends.load("numpy"), blas_threads()
    if not before or max(before) == 1:
        pytest.skip("BLAS has no threads to limit here")
    first, second = backend.limit_threads(1), backend.limit_threads(max(before))
    first.__enter__()
    second.__enter__()
    assert set(blas_threads()) == {1}
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert blas_threads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fit_in_a_forked_process(both):
    kind, X, y = both
    model = kind().fit(X, y)
    child = os.fork()
    if not child:
        same = np.array_equal(kind().fit(X, y).coefs_[0], model.coefs_[0])
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_changes_the_threads_of_blas(classifier):
    X, y = data("iris")
    held = threading.Event()

    def hold():
        with CHANGING:
            held.set()
            time.sleep(0.2)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    child = os.fork()
    if not child:
        signal.alarm(20)  # ends a child that waits for a lock nobody will release
        classifier().fit(X, y)
        os._exit(0)
    holder.join()
    assert os.waitpid(child, 0)[1] == 0


def test_no_threads_are_left_behind(both):
    kind, X, y = both
    kind(threads=2).fit(X, y)
    before = running()
    for _ in range(20):
        kind(threads=2, max_iter=2).fit(X, y)
    assert settled(before)
