"""scikit-learn's MLPClassifier and MLPRegressor, with fastmlp's backends under them and more options on top."""

from fastmlp.estimators.classifier import MLPClassifier
from fastmlp.estimators.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
