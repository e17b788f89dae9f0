"""Which backend runs: asked for, chosen, replaced with a warning, or refused."""

import warnings

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import fastmlp
from fastmlp import BackendFallbackWarning, BackendUnavailable, OptionError, backends
from fastmlp.backends import NAMES, available, load, select
from fastmlp.network import Network


@pytest.fixture
def broken(monkeypatch):
    """Call it with names: those backends then cannot be used."""

    def make(*names):
        real = load
        monkeypatch.setattr(backends, "load", lambda name: f"{name} is out" if name in names else real(name))

    return make


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("strict", [False, True])
def test_a_backend_asked_for_runs_silently(name, strict):
    if isinstance(load(name), str):
        pytest.skip(load(name))
    chosen = select(name, strict=strict)
    assert chosen.backend.name == name
    assert chosen.reason == "asked for"


def test_numpy_always_works():
    assert not isinstance(load("numpy"), str)


def test_a_backend_is_probed_once():
    assert load("numpy") is load("numpy")


@pytest.mark.parametrize(
    ("out", "runs"), [((), "numba"), (("numba",), "numpy")], ids=["numba is best", "numba is missing"]
)
def test_auto_takes_the_best_silently_and_says_why(broken, out, runs):
    if isinstance(load("numba"), str):
        pytest.skip(load("numba"))
    broken("cupy", *out)
    chosen = select()
    assert chosen.backend.name == runs
    for name in ("cupy", *out):
        assert f"{name} is not usable ({name} is out)" in chosen.reason


def test_auto_with_everything_usable_is_the_fastest(monkeypatch):
    monkeypatch.setattr(backends, "load", lambda name: load("numpy"))
    assert select("auto").reason == "the fastest usable here"


@pytest.mark.parametrize(
    ("asked", "out", "runs"),
    [("numba", ("numba",), "numpy"), ("cupy", ("cupy",), "numba"), ("cupy", ("cupy", "numba"), "numpy")],
)
def test_a_missing_backend_is_replaced_with_one_warning_that_says_why(broken, asked, out, runs):
    if runs == "numba" and isinstance(load("numba"), str):
        pytest.skip(load("numba"))
    broken(*out)
    with pytest.warns(BackendFallbackWarning) as caught:
        chosen = select(asked)
    assert chosen.backend.name == runs
    assert len(caught) == 1
    text = str(caught[0].message)
    assert f"{asked} is not usable ({asked} is out)" in text
    assert f"{runs} runs instead" in text
    assert asked in chosen.reason


@pytest.mark.parametrize("asked", ["numba", "cupy"])
def test_strict_raises_and_says_why(broken, asked):
    broken("numba", "cupy")
    with pytest.raises(BackendUnavailable, match=rf"{asked} is not usable \({asked} is out\); .*drop strict=True"):
        select(asked, strict=True)


def test_strict_leaves_auto_free(broken):
    broken("cupy", "numba")
    assert select("auto", strict=True).backend.name == "numpy"


def test_nothing_usable_raises(broken):
    broken("cupy", "numba", "numpy")
    with pytest.raises(BackendUnavailable, match=r"cupy is out.*numba is out.*numpy is out"):
        select("auto")


@pytest.mark.parametrize("name", ["torch", "", "NumPy", None, 3])
def test_an_unknown_name_is_refused_with_the_list(name):
    with pytest.raises(OptionError, match="backend: expected one of auto, cupy, numba, numpy; got"):
        select(name)


def test_a_broken_module_is_a_reason_not_an_error(monkeypatch):
    monkeypatch.setitem(backends.CLASSES, "crash", "CrashBackend")
    assert "No module named 'fastmlp.backends.crash'" in load.__wrapped__("crash")


def test_available_lists_every_backend_with_a_reason():
    rows = available()
    assert [row.name for row in rows] == ["cupy", "numba", "numpy"]
    assert all(row.reason for row in rows)
    assert rows[-1].usable
    assert {row.name for row in rows} | {"auto"} == set(NAMES)


def test_available_says_why_not(broken):
    broken("numba")
    row = available()[1]
    assert (row.name, row.usable, row.reason) == ("numba", False, "numba is out")


def test_train_warns_where_it_is_called_and_reports_the_reason(broken, blobs):
    broken("numba")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fastmlp.train(*blobs, backend="numba", epochs=1, progress=False)
    assert [w.category for w in caught] == [BackendFallbackWarning]
    assert caught[0].filename == __file__
    assert model.report.requested == "numba"
    assert model.report.backend == "numpy"
    assert "numba is out" in model.report.reason


def test_train_strict_raises(broken, blobs):
    broken("numba")
    with pytest.raises(BackendUnavailable, match="numba is out"):
        fastmlp.train(*blobs, backend="numba", strict=True, epochs=1, progress=False)


def blas_threads():
    """Of NumPy's BLAS; SciPy brings another, which fastmlp does not use."""
    return [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]]


def test_threads_are_limited_inside_and_restored_after(backend):
    if backend.name == "numba":
        cores = backend.describe()["threads"]
        assert [backend.describe(asked)["threads"] for asked in (1, cores, 10**6)] == [1, cores, cores]
        assert backend.plan(Network((2, 2)), np.zeros(6, np.float32), 10**6).threads == cores
        return
    before = blas_threads()
    with backend.limit_threads(1):
        assert set(blas_threads()) <= {1}
        assert backend.describe()["threads"] in (1, None)
    assert blas_threads() == before
    with backend.limit_threads(None):
        assert blas_threads() == before


def test_threads_are_restored_after_an_error(backend):
    before = blas_threads()
    with pytest.raises(ZeroDivisionError), backend.limit_threads(1):
        raise ZeroDivisionError
    assert blas_threads() == before


def test_describe_names_the_blas_and_the_versions(backend):
    facts = backend.describe()
    assert facts["blas"]
    assert facts["versions"]["numpy"] == np.__version__
    assert (backend.name == "numba") == ("numba" in facts["versions"])


def test_arrays_stay_where_they_are(backend):
    host = np.arange(3.0)
    assert backend.asarray(host) is host
    assert backend.to_host(host) is host


def test_zeros_have_shape_type_and_layout(backend, dtype):
    for shape in (5, (3, 4), (0, 4)):
        made = backend.zeros(shape, dtype)
        assert made.shape == (shape if isinstance(shape, tuple) else (shape,))
        assert made.dtype == dtype
        assert made.flags.c_contiguous
        assert not made.any()


@pytest.mark.parametrize("sizes", [(784, 160, 10), (4, 2), (10, 5000, 5000, 3), (100_000, 2)], ids=str)
def test_a_tile_has_rows_enough_for_blas(backend, sizes):
    assert backend.tile_rows(sizes) >= 64
