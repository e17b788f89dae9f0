"""Dense networks trained at the speed of the hardware at hand.

One forward and one backward code, written once in `fastmlp.network`, run on NumPy, Numba or CuPy; the backend is
chosen at run time.

>>> import fastmlp
>>> model = fastmlp.train(backend="numpy", epochs=1, progress=False)
>>> len(model.history)
1
"""

from typing import TYPE_CHECKING, Any

from fastmlp import backends
from fastmlp.errors import (
    BackendFallbackWarning,
    BackendUnavailable,
    DataError,
    ModelFileError,
    OptionError,
    TrainingDiverged,
)
from fastmlp.history import History
from fastmlp.model import Model
from fastmlp.model_io import load
from fastmlp.report import Report
from fastmlp.training import train
from fastmlp.warmup import warmup

if TYPE_CHECKING:
    from fastmlp.estimators import MLPClassifier, MLPRegressor
    from fastmlp.many import train_many

__all__ = [
    "BackendFallbackWarning",
    "BackendUnavailable",
    "DataError",
    "History",
    "MLPClassifier",
    "MLPRegressor",
    "Model",
    "ModelFileError",
    "OptionError",
    "Report",
    "TrainingDiverged",
    "backends",
    "load",
    "train",
    "train_many",
    "warmup",
]

LAZY = {
    "MLPClassifier": "fastmlp.estimators",
    "MLPRegressor": "fastmlp.estimators",
    "train_many": "fastmlp.many",
}


def __getattr__(name: str) -> Any:
    """What is loaded when it is first asked for; the estimators need scikit-learn and SciPy."""
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(LAZY[name]), name)
