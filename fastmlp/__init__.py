"""Dense networks trained at the speed of the hardware at hand.

One forward and one backward code, written once in `fastmlp.network`, run on NumPy, Numba or CuPy; the backend is
chosen at run time.

>>> import fastmlp
>>> model = fastmlp.train(backend="numpy", epochs=1, progress=False)
>>> len(model.history)
1
"""

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

__all__ = [
    "BackendFallbackWarning",
    "BackendUnavailable",
    "DataError",
    "History",
    "Model",
    "ModelFileError",
    "OptionError",
    "Report",
    "TrainingDiverged",
    "backends",
    "load",
    "train",
]
