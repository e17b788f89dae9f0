"""scikit-learn's checks of estimators, all of them, on each CPU backend."""

import pytest
from named import CPU_BACKENDS
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp import MLPClassifier, MLPRegressor

KINDS = (MLPClassifier, MLPRegressor)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # the checks stop early on purpose
@parametrize_with_checks([kind(max_iter=100, backend=name, threads=1) for kind in KINDS for name in CPU_BACKENDS])
def test_estimator(estimator, check):
    check(estimator)
