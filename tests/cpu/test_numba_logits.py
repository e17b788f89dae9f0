"""Few rows through a wide first layer, whose columns the threads share."""

import numpy as np
import pytest
import scipy.sparse
from test_bfloat16 import needs_bfloat16
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp import backends
from fastmlp.backends import compiled, numba_plan, numba_ways
from fastmlp.backends import numba as numba_backend
from fastmlp.backends.numba_ways import TILE, by_columns
from fastmlp.network import Network, parameter_count

SIZES = [(19, 3), (19, 40, 5), (70, 33, 9, 4)]


def content(kind, n, I):
    """Rows X (n, I) of a kind."""
    rng = np.random.default_rng(n)
    if kind == "pixels":
        return rng.integers(0, 256, (n, I), dtype=np.uint8)
    X = rng.standard_normal((n, I)).astype(np.float32)
    return X if kind in ("dense", "bfloat16") else scipy.sparse.csr_matrix(X * (X > 0))


def plan(name, sizes, threads, precision=None):
    """A network whose biases count, too."""
    start = np.random.default_rng(2).standard_normal(parameter_count(sizes)).astype(np.float32) / 10
    return backends.load(name).plan(Network(sizes, "tanh"), start, threads, precision)


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("n", [1, 5, 100, TILE])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["dense", "pixels", "csr", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_threads_that_share_columns_predict_what_one_does(kind, sizes, n, threads, monkeypatch):
    X, calls, compute = content(kind, n, sizes[0]), [], compiled.outputs_by_columns
    precision = kind if kind == "bfloat16" else None
    alone = plan("numba", sizes, 1, precision)
    expected = alone.logits(X), alone.probabilities(X)
    monkeypatch.setattr(numba_backend, "team_threads", lambda asked: asked)
    monkeypatch.setattr(numba_plan, "START", 0)
    monkeypatch.setattr(numba_ways, "WIDE", 0)
    monkeypatch.setattr(compiled, "outputs_by_columns", lambda *task: calls.append(task[0]) or compute(*task))
    shared = plan("numba", sizes, threads, precision)
    together = shared.logits(X)
    assert sorted(calls) == list(range(threads))
    assert together.tobytes() == expected[0].tobytes()
    assert shared.probabilities(X).tobytes() == expected[1].tobytes()
    if kind in ("dense", "pixels"):  # the numpy backend multiplies CSR by SciPy, which is tested elsewhere
        assert_close(together, plan("numpy", sizes, 1).logits(X), "float32", "run")


def test_columns_are_shared_where_the_layer_is_wide_and_the_rows_are_few():
    assert by_columns((1024, 1024, 10), TILE)
    assert not by_columns((1024, 1024, 10), TILE + 1)
    assert not by_columns((784, 160, 10), 8)
