"""The loss that L-BFGS moves down, and its gradient."""

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

from estimators.conftest import data
from fastmlp.estimators import lbfgs

STEP = 1e-6


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["iris", "multilabel"])
def test_the_gradient_is_that_of_the_loss_with_its_penalty(classifier, name, weighted, monkeypatch):
    seen = {}

    def minimize(f, start, **options):
        value, g = f(start)
        directions = np.random.default_rng(0).standard_normal((5, len(start)))  # (5, P)
        seen["slopes"] = [(f(start + STEP * d)[0] - f(start - STEP * d)[0]) / (2 * STEP) for d in directions]
        seen["along"] = directions @ g
        return OptimizeResult(fun=value, x=start, nit=0, status=0, message="")

    monkeypatch.setattr(lbfgs, "minimize", minimize)
    X, y = data(name)
    weight = np.random.default_rng(1).uniform(0.5, 2, len(X)) if weighted else None
    classifier(solver="lbfgs", alpha=3.0, activation="tanh").fit(X, y, weight)
    np.testing.assert_allclose(seen["along"], seen["slopes"], rtol=1e-6, atol=1e-9)
