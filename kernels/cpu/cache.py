"""Compiled code kept on disk, and never stale.

Numba looks for a change in the file of the compiled function only. Ours is made of many files, so its name in the
cache carries a hash of them all: after an edit or an upgrade it is simply another name. Numba itself tells CPUs and
its own versions apart, and uses the user's cache folder where the install is read-only.
"""

import hashlib
from pathlib import Path
from types import SimpleNamespace

from numba import extending, njit

INNER = {"no_cfunc_wrapper": True, "no_cpython_wrapper": True}
OPTIONS = {"nogil": True, "error_model": "numpy"}  # no fast-math: NaN and infinity pass, sums keep their order


def fingerprint(folder):
    """A hash of the Python sources of a folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


KERNELS = fingerprint(Path(__file__).parent)


def compiled(function):
    """`function` for compiled code alone: what Python would need to call it takes longer to compile than the rest."""
    return njit(**INNER, **OPTIONS)(function)


def for_python(*functions):
    """Functions of compiled code for Python to call, under their names."""

    def opened(function):
        return njit(no_cfunc_wrapper=True, **OPTIONS)(lambda *arguments: function(*arguments))

    return SimpleNamespace(**{function.__name__: opened(function) for function in functions})


def overload(function, **options):
    """`numba.extending.overload` for compiled code alone."""
    return extending.overload(function, jit_options=INNER, **options)


def kept(function, version=KERNELS):
    """`function` compiled once and kept on disk under a name that carries `version`."""
    function.__qualname__ += f"_{version}"
    return with_cache(njit, function, no_cfunc_wrapper=True, **OPTIONS)


def with_cache(decorator, function, **options):
    """`function` under a decorator of Numba's, kept on disk where there is a folder to write to."""
    try:
        return decorator(cache=True, **options)(function)
    except RuntimeError:  # there is none: it is compiled anew in each process
        return decorator(**options)(function)
