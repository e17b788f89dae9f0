"""backend="auto": when an estimator takes compiled code, and when NumPy."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.sparse

from estimators.conftest import data
from fastmlp import MLPClassifier, backends
from fastmlp.estimators import choice
from fastmlp.estimators.choice import COMPILE, Fit, choose
from fastmlp.network import Network


@pytest.fixture(autouse=True)
def compiled(monkeypatch, tmp_path):
    """Nothing is compiled yet, whatever this process did before. Returns the mark of what has been."""
    monkeypatch.setattr(choice, "could_save", choice.defaultdict(float))
    monkeypatch.setattr(choice, "mark_of", lambda fit: tmp_path / fit.kind)
    monkeypatch.setattr(choice, "marked", set())
    if isinstance(backends.load("numba"), str):
        pytest.skip("numba is not usable")
    if not isinstance(backends.load("cupy"), str):
        pytest.skip("a GPU is taken before")
    return tmp_path


def fit_of(rows, epochs=200, hidden=100):
    network = Network((16, hidden, 4))
    return Fit(network, "adam", np.zeros((rows, 16)), False, True, 200, epochs, True)


def test_a_short_fit_is_not_worth_a_compilation():
    assert choose(fit_of(400)).name == "numpy"


def test_a_long_fit_is():
    assert choose(fit_of(1_000_000)).name == "numba"


def test_what_is_compiled_is_used_at_once(compiled):
    fit = fit_of(4000)
    assert choose(fit).name == "numpy"
    choice.is_compiled(fit)
    choice.could_save.clear()  # as in a new process
    assert choose(fit).name == "numba"
    assert choose(fit_of(4000)._replace(weighted=True)).name == "numpy"  # which is another kind


def test_many_short_fits_pay_for_a_compilation():
    fit, spent = fit_of(4000), 0.0
    while choose(fit).name == "numpy":
        spent += fit.gain
        assert spent < COMPILE
    assert spent > COMPILE / 2


def test_zeros_of_csr_rows_save_nothing():
    X = scipy.sparse.csr_array(([1.0], ([0], [0])), shape=(400_000, 16))
    dense = fit_of(400_000)._replace(batch=400_000)
    assert dense._replace(X=X).gain < 0.5 * dense.gain


def test_a_fit_goes_on_where_it_began():
    X, y = data("iris")
    model = MLPClassifier(max_iter=2).fit(X, y)
    assert model._engine.backend.name == "numpy"
    choice.could_save.update({kind: COMPILE for kind in list(choice.could_save)})
    model.partial_fit(X, y)
    assert model._engine.backend.name == "numpy"
    assert MLPClassifier(max_iter=2).fit(X, y)._engine.backend.name == "numba"


def test_a_short_fit_does_not_even_import_numba():
    code = """
import sys, warnings
warnings.simplefilter("ignore")
from fastmlp import MLPClassifier
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True)
MLPClassifier(max_iter=20).fit(X, y).predict(X)
print("numba" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr
