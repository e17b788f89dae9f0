"""CSR rows on the numba backend: against the numpy backend, the oracle, and the same rows as an array."""

import numpy as np
import oracle
import pytest
import scipy.sparse
from steps import epoch, learner, run
from tolerance import assert_close

pytest.importorskip("numba")

from fastmlp.kernels.cpu import csr
from fastmlp.kernels.cpu.cache import for_python

from fastmlp import DataError, MLPClassifier
from fastmlp.backends import numba_learner, numba_plan, numba_ways
from fastmlp.backends.base import Rows
from fastmlp.backends.numba_ways import LARGE
from fastmlp.network import initialise, layer_views
from fastmlp.optimizers import OPTIMIZERS

NET = (130, 33, 5)
N = 300


@pytest.fixture(autouse=True)
def threads_at_any_size(monkeypatch):
    """Small work, too, is split over the threads asked for; small batches take phases, of small networks too."""
    monkeypatch.setattr(numba_learner, "ALONE", 0)
    monkeypatch.setattr(numba_ways, "SMALL", 0)
    monkeypatch.setattr(numba_ways, "FEW", 0)
    monkeypatch.setattr(numba_plan, "START", 0)


def data(real="float32", seed=0, n=N):
    """X (n, 130) CSR, most of it zero, y (n,); rows and columns of nothing, a full row, and a full column."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, NET[0])).astype(real)
    X[rng.random(X.shape) < 0.93] = 0
    X[[0, n // 2, n - 1]] = 0
    X[:, [0, 64, NET[0] - 1]] = 0
    X[n // 3] = 1
    X[:, 7] = 2
    X[n // 4] = 0
    return scipy.sparse.csr_matrix(X), rng.integers(0, NET[-1], n).astype(np.int32)


def assert_same(made, reference, rows, batch, real="float32"):
    """Epochs, evaluation, logits and gradient of one are the other's."""
    for got, want in zip(run(made, rows, batch), run(reference, rows, batch), strict=True):
        assert got.dtype == want.dtype
        assert_close(got, want, real, "run")
    assert_close(made.plan.evaluate(rows), reference.plan.evaluate(rows), real, "run")
    assert_close(made.plan.logits(rows.X), reference.plan.logits(rows.X), real, "run")
    for got, want in zip(made.gradient(rows), reference.gradient(rows), strict=True):
        assert_close(got, want, real, "run")


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_batches_are_those_of_the_numpy_backend(rule):
    X, y = data()
    rows = Rows(X, y, np.random.default_rng(1).permutation(N)[:290])
    for threads in (1, 2, 3):
        assert_same(learner("numba", NET, rule=rule, threads=threads), learner("numpy", NET, rule=rule), rows, 48)


def test_double_precision_and_large_batches():
    X, y = data("float64", n=2 * LARGE + 99)
    for batch in (500, LARGE + 7):
        for threads in (1, 2):
            made, reference = (learner(name, NET, "float64", "adam", threads) for name in ("numba", "numpy"))
            assert_same(made, reference, Rows(X, y), batch, "float64")


def test_the_full_batch_follows_the_oracle():
    X, y = data("float64")
    start = layer_views(initialise(NET, np.random.default_rng(3), np.dtype("float64")), NET)
    curve, _, W, b = oracle.train(X.toarray(), y, *start, steps=4, rule="adam", rate=0.01)
    for batch in (N, LARGE + 7):
        made = learner("numba", NET, "float64", "adam", 2)
        got, parameters = run(made, Rows(X, y), batch, 4)
        assert_close(got[:, 0], curve, "float64", "run")
        for part, want in zip(sum(layer_views(parameters, NET), ()), (*W, *b), strict=True):
            assert_close(part, want, "float64", "run")


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_threads_give_the_same_bits(threads):
    X, y = data()
    rows = Rows(X, y, np.random.default_rng(0).permutation(N))
    one, other = (run(learner("numba", NET, rule="adam", threads=threads), rows, 50)[1] for _ in range(2))
    assert one.tobytes() == other.tobytes()
    assert_close(one, run(learner("numba", NET, rule="adam", threads=1), rows, 50)[1], "float32", "run")


def unsorted(X):
    """The numbers of each row in reverse."""
    X = X.copy()
    for first, last in zip(X.indptr[:-1], X.indptr[1:], strict=True):
        X.indices[first:last], X.data[first:last] = X.indices[first:last][::-1].copy(), X.data[first:last][::-1].copy()
    X.has_sorted_indices = False
    return X


def wide(X):
    """Indices of 64 bits."""
    X = X.copy()
    X.indptr, X.indices = X.indptr.astype(np.int64), X.indices.astype(np.int64)
    return X


def twice(X):
    """Each number in two halves at the same place, and zeros that are written out."""
    halves = np.repeat(X.data / 2, 2)
    halves[:2] = [X.data[0], 0]
    return scipy.sparse.csr_matrix((halves, np.repeat(X.indices, 2), 2 * X.indptr), X.shape)


@pytest.mark.parametrize("form", [unsorted, wide, twice, scipy.sparse.csr_array])
def test_any_form_of_csr(form):
    X, y = data()
    order = np.array([5, 5, 5, 299, 0, *range(200)])  # a row may come more than once
    want = run(learner("numpy", NET), Rows(X, y, order), 48)
    other = form(X)
    got = run(learner("numba", NET, threads=2), Rows(other, y, order), 48)
    for one, expected in zip(got, want, strict=True):
        assert_close(one, expected, "float32", "run")


def test_rows_of_nothing_at_all():
    X, y = scipy.sparse.csr_matrix((60, NET[0]), dtype=np.float32), data()[1][:60]
    assert_same(
        learner("numba", NET, rule="adam", threads=2), learner("numpy", NET, rule="adam"), Rows(X, y, np.arange(60)), 16
    )


def test_a_learner_takes_csr_and_arrays_in_turn():
    X, y = data()
    made, reference = learner("numba", NET, rule="adam", threads=2), learner("numpy", NET, rule="adam")
    for batch, given in ((40, X), (40, X.toarray()), (60, X), (2 * LARGE, X), (7, X)):
        rows = Rows(given, y, np.arange(N))
        assert_close(epoch(made, rows, batch), epoch(reference, rows, batch), "float32", "run")
    assert_close(made.plan.parameters, reference.plan.parameters, "float32", "run")


def test_a_nan_passes():
    X, y = data()
    X.data[10] = np.nan
    assert np.isnan(epoch(learner("numba", NET, threads=2), Rows(X, y), 50)[0])


def test_beside_products_of_bfloat16_those_of_csr_are_not_rounded():
    """W and dW then look like uint32."""
    X, _ = data()
    W, b = (np.random.default_rng(1).standard_normal(shape).astype(np.float32) for shape in (NET[:2], NET[1]))
    x = csr.Picked(csr.CSR(X.indptr.astype(np.int64), X.indices, X.data), None, 0, N,
                   csr.room_for_lists(NET[0], X.nnz, np.float32))  # fmt: skip
    z, dW = np.empty((N, NET[1]), np.float32), np.empty(NET[:2], np.float32)
    call = for_python(csr.affine, csr.list_columns, csr.gradient_rows)
    call.affine(x, W.view(np.uint32), b, z, False)
    assert_close(z, X.toarray().astype(np.float64) @ W + b, "float32")
    call.list_columns(x, 0, NET[0])
    call.gradient_rows(x, z, dW.view(np.uint32), 0, NET[0], False)
    np.testing.assert_allclose(dW, X.toarray().astype(np.float64).T @ z, rtol=2e-5, atol=2e-5)


def broken(part, place, value):
    """X with one index changed."""
    X, y = data()
    getattr(X, part)[place] = value
    return X, y


@pytest.mark.parametrize(
    ("part", "place", "value"),
    [("indices", 3, NET[0]), ("indices", 3, -1), ("indptr", 5, 10**6), ("indptr", -1, 10**6), ("indptr", 0, 1)],
)
def test_indices_that_lead_beyond_the_matrix_are_refused(part, place, value):
    X, y = broken(part, place, value)
    made = learner("numba", NET)
    before = made.plan.parameters.copy()
    for use in (lambda: epoch(made, Rows(X, y), 50), lambda: made.plan.logits(X), lambda: made.gradient(Rows(X, y))):
        with pytest.raises(DataError, match="expected a CSR matrix whose indices lie in it"):
            use()
    np.testing.assert_array_equal(made.plan.parameters, before)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_an_estimator_gives_the_same_model_for_csr_csc_and_arrays(solver):
    X, y = data("float64")
    options = dict(solver=solver, max_iter=3, random_state=0, threads=2)
    want = MLPClassifier((9,), **options, backend="numpy").fit(X.toarray(), y).predict_proba(X.toarray())
    for form in (X, X.tocsc()):
        model = MLPClassifier((9,), **options, backend="numba").fit(form, y)
        assert_close(model.predict_proba(form), want, "float64", "run")
