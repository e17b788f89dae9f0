"""scikit-learn's own tests of its MLP, run on fastmlp's estimators: ``python tests/run_sklearn_suite.py BACKEND``.

Its file is taken from the installed scikit-learn, unchanged, with our classes in the place of theirs.
"""

import sys

import pytest

# Tests that reach into what is private there, why, and the test of ours that looks at the same behaviour.
EXCLUDED = {
    "test_gradient": "calls _loss_grad_lbfgs; see tests/estimators/test_lbfgs.py and tests/test_network.py",
}
MODULE = "sklearn.neural_network.tests.test_mlp"


class Ours:
    """A plugin that puts our classes into the module under test, before its tests are collected."""

    def __init__(self, backend):
        from fastmlp import MLPClassifier, MLPRegressor

        for kind in (MLPClassifier, MLPRegressor):  # their tests name no backend
            kind.__init__.__kwdefaults__["backend"] = backend
        import sklearn.neural_network

        sklearn.neural_network.MLPClassifier, sklearn.neural_network.MLPRegressor = MLPClassifier, MLPRegressor

    def pytest_collection_modifyitems(self, config, items):
        excluded = [item for item in items if item.originalname in EXCLUDED]
        assert {item.originalname for item in excluded} == set(EXCLUDED), "a test that is left out is not there"
        items[:] = [item for item in items if item not in excluded]
        for item in items:
            assert item.module.MLPClassifier.__module__.startswith("fastmlp."), "their class is under test"


def main(backend):
    """Run the suite; the exit code is pytest's."""
    options = [
        "--pyargs",
        MODULE,
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "-W",
        "ignore::pytest.PytestWarning",
    ]
    return pytest.main(options, plugins=[Ours(backend)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
