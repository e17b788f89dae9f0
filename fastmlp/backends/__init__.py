"""Backends: which there are, which work here, and which to use."""

from __future__ import annotations

import importlib
import warnings
from functools import cache
from typing import NamedTuple

import numpy as np

from fastmlp.backends.base import Backend
from fastmlp.errors import BackendFallbackWarning, BackendUnavailable, OptionError

# In the order in which "auto" tries them. numba and cupy may be missing or broken: each is imported on first use.
CLASSES = {"cupy": "CupyBackend", "numba": "NumbaBackend", "numpy": "NumpyBackend"}
NAMES = ("auto", *CLASSES)


class Availability(NamedTuple):
    """One row of `available`."""

    name: str
    usable: bool
    reason: str  # what it computes with, or why it cannot be used


class Selection(NamedTuple):
    """The backend that will run, and why this one."""

    backend: Backend
    reason: str


def parameter_type(backend: Backend, precision: str) -> np.dtype:
    """The type of a network's parameters where it computes in `precision`: fewer bits are for operands of products.

    Raises OptionError, with the reason, if the backend cannot compute in it here.
    """
    if precision not in backend.precisions:
        why = backend.refusals.get(precision, f"it computes in {' or '.join(backend.precisions)}")
        raise OptionError(f"precision: the {backend.name} backend cannot compute in {precision}: {why}")
    return np.dtype("float64" if precision == "float64" else "float32")


@cache
def load(name: str, *device: int) -> Backend | str:
    """The backend called `name`, probed once in a process; or, as text, the reason why it cannot be used here.

    `device` is the number of a GPU, for cupy; without one it takes the first.
    """
    try:
        module = importlib.import_module(f"fastmlp.backends.{name}")
        backend: Backend = getattr(module, CLASSES[name])(*device)
    except Exception as error:  # a broken install of CuPy or Numba can raise anything at all
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return backend


def available() -> list[Availability]:
    """Every backend, whether it can be used here, and what it computes with or why it cannot.

    Examples
    --------
    >>> [row.name for row in available()]
    ['cupy', 'numba', 'numpy']
    """
    rows = []
    for name in CLASSES:
        backend = load(name)
        if isinstance(backend, str):
            rows.append(Availability(name, False, backend))
        else:
            facts = backend.describe()
            rows.append(Availability(name, True, str(facts.get("device") or facts["blas"])))
    return rows


def select(name: str = "auto", *, strict: bool = False, device: int = 0) -> Selection:
    """The backend to use: the one asked for, or where it cannot be used here, the best CPU backend.

    Parameters
    ----------
    name
        "auto", "cupy", "numba" or "numpy". "auto" takes cupy if a GPU truly computes, else numba, else numpy.
    strict
        Raise instead of falling back.
    device
        Number of the GPU, where cupy runs.

    Warns
    -----
    BackendFallbackWarning
        The backend asked for cannot be used; says why, and what runs instead.

    Raises
    ------
    OptionError
        There is no backend of that name.
    BackendUnavailable
        The backend asked for cannot be used here and `strict` is set.
    """
    if name not in NAMES:
        raise OptionError(f"backend: expected one of {', '.join(NAMES)}; got {name!r}")
    refused = []
    for candidate in CLASSES if name == "auto" else dict.fromkeys((name, "numba", "numpy")):
        backend = load(candidate, device) if candidate == "cupy" and device else load(candidate)
        if isinstance(backend, str):
            refused.append(f"{candidate} is not usable ({backend})")
            if strict and name != "auto":
                raise BackendUnavailable(
                    f"backend {refused[0]}; repair it, or drop strict=True to fall back to the CPU"
                )
            continue
        if candidate == name:
            return Selection(backend, "asked for")
        reason = "; ".join(refused) or "the fastest usable here"
        if name != "auto":
            warnings.warn(f"backend {reason}: {candidate} runs instead", BackendFallbackWarning, stacklevel=3)
        return Selection(backend, reason)
    raise BackendUnavailable("; ".join(refused))
