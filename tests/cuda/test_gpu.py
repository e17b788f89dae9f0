"""The CuPy backend on a real GPU: all that is tested under emulation, and what only a card can show."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_cupy_losses import LossTests
from test_cupy_ops import LayerTests
from test_cupy_plan import PlanTests
from test_cupy_updates import UpdateTests

import fastmlp
from fastmlp.backends import load
from fastmlp.backends.base import Rows
from fastmlp.network import Network, initialise
from fastmlp.optimizers import Settings, find

pytestmark = pytest.mark.gpu
NET = Network((784, 160, 10))
PRECISIONS = ["float32", "tf32", "float16", "bfloat16"]


@pytest.fixture
def backend():
    return load("cupy")


class TestOperations(LayerTests, LossTests, UpdateTests):
    """Every operation, at every precision."""


class TestPlans(PlanTests):
    """Every plan: the oracle at each precision, the same bits from two runs, and from graphs and single launches."""


def noise(n=5000):
    """X (n, 784) uint8, y (n,) int32."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (n, 784)).astype(np.uint8), random.integers(0, 10, n).astype(np.int32)


def epochs(backend, precision, *, graphs=True, count=3, batch=128):
    """Parameters (P,) and totals after some epochs of the reference network."""
    X, y = noise()
    plan = backend.plan(NET, initialise(NET.sizes, np.random.default_rng(1), np.dtype(np.float32)), None, precision)
    learner = plan.learner(find("momentum"), Settings())
    if not graphs:
        learner.refusal = "switched off"
    X, y, random = backend.asarray(X), backend.asarray(y), np.random.default_rng(2)
    totals = [
        learner.epoch(Rows(X, y, random.permutation(len(y))), batch, np.full(-(-len(y) // batch), 0.1))
        for _ in range(count)
    ]
    return np.concatenate([backend.to_host(plan.parameters), np.ravel(totals)]), learner.launches


def test_describe_names_card_and_libraries(backend):
    facts = backend.describe()
    assert "compute capability" in facts["device"]
    assert facts["blas"].startswith("cuBLAS ")
    assert facts["versions"].keys() == {"numpy", "cupy", "cuda runtime"}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_reference_network_gives_the_same_bits_by_graphs_and_one_by_one(precision, backend):
    if precision not in backend.precisions:
        pytest.skip(f"this card lacks {precision}: {backend.refusals[precision]}")
    first, launches = epochs(backend, precision)
    assert launches.startswith("CUDA graphs")
    assert epochs(backend, precision)[0].tobytes() == first.tobytes()
    single, launches = epochs(backend, precision, graphs=False)
    assert launches == "one by one: switched off"
    assert single.tobytes() == first.tobytes()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_early_launches_give_the_bits_of_launches_in_turn(precision, backend, monkeypatch):
    from fastmlp.kernels.cuda import early

    soon = [epochs(backend, precision, graphs=graphs)[0].tobytes() for graphs in (True, False)]
    monkeypatch.setattr(early, "CAPABILITY", 1000)
    in_turn = [epochs(backend, precision, graphs=graphs)[0].tobytes() for graphs in (True, False)]
    assert soon == in_turn


def test_memory_is_returned_after_training(backend):
    import cupy

    pool = cupy.get_default_memory_pool()
    epochs(backend, "float32")
    gc.collect()
    before = pool.used_bytes()
    epochs(backend, "float32")
    gc.collect()
    assert pool.used_bytes() == before


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_takes_rows_where_they_lie(backend):
    import cupy

    X, y = noise()
    X = (X / 255).astype(np.float32)
    options = dict(max_iter=3, random_state=0)
    expected = fastmlp.MLPClassifier(backend="numpy", **options).fit(X, y)
    for rows in (X, cupy.asarray(X)):
        model = fastmlp.MLPClassifier(backend="cupy", **options).fit(rows, y)
        np.testing.assert_allclose(model.loss_curve_, expected.loss_curve_, rtol=1e-3)
        np.testing.assert_allclose(model.predict_proba(rows), expected.predict_proba(X), atol=1e-2)


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_fewer_bits_reach_the_accuracy_of_float32(precision, backend, mnist):
    """Within 0.1 point on MNIST's test part, in the mean of three seeds."""
    X, y, X_test, y_test = mnist
    options = dict(backend="cupy", strict=True, batch_size=64, epochs=8, learning_rate=0.3, progress=False)
    if precision not in backend.precisions:
        pytest.skip(f"this card lacks {precision}: {backend.refusals[precision]}")

    def accuracy(bits):
        models = (fastmlp.train(X, y, precision=bits, seed=seed, **options) for seed in range(3))
        return np.mean([model.score(X_test, y_test) for model in models])

    assert accuracy(precision) > accuracy("float32") - 0.001


SMALL = """
import numpy as np
import fastmlp
random = np.random.default_rng(0)
X = random.integers(0, 256, (333, 64)).astype(np.uint8)
y = X[:, :5].argmax(axis=1)
for precision in ("float32", "float16"):
    for hidden in ((40,), (33, 17)):
        options = dict(backend="cupy", strict=True, precision=precision, progress=False)
        fastmlp.train(X, y, hidden=hidden, batch_size=100, epochs=2, validation=0.2, **options)
"""


@pytest.mark.parametrize("tool", ["memcheck", "racecheck"])
def test_compute_sanitizer_has_nothing_to_say(tool, backend):
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.access(sanitizer, os.X_OK):
        pytest.skip("compute-sanitizer is not installed: it comes with the CUDA toolkit")
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SMALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "0 errors" in done.stdout or "0 hazards" in done.stdout
