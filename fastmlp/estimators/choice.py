"""backend="auto" for an estimator: compiled code where it saves more time than its compilation takes."""

from __future__ import annotations

import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import issparse

from fastmlp.backends import load
from fastmlp.backends.base import Backend
from fastmlp.network import Network, parameter_count

# Seconds, measured on 2 cores of an AMD EPYC (Zen 4): to compile for one kind of fit; to load that from the compile
# cache; to import Numba before. What NumPy takes longer than compiled code: for each step, for each byte of parameters
# in a step, and for each byte of a number for each flop.
COMPILE, LOAD, IMPORT = 10.0, 0.1, 0.6
STEP, BYTE, FLOP = 1.5e-4, 7.5e-10, 4e-13


class Fit(NamedTuple):
    """What compiled code depends on, and how much there is to do."""

    network: Network
    rule: str
    X: Any  # (N, I), an array or CSR
    weighted: bool
    shuffled: bool
    batch: int
    epochs: int
    tiles: bool  # see `fastmlp.backends.numba_ways`

    @property
    def kind(self) -> str:
        """Fits of one kind run the same compiled code."""
        net = self.network
        parts = len(net.sizes), *net.kinds, net.loss, net.dropout > 0, self.rule, self.weighted, self.shuffled
        layout = "dense" if isinstance(self.X, np.ndarray) else "csr"
        return "-".join(map(str, (*parts, self.tiles, self.X.dtype, layout)))

    @property
    def gain(self) -> float:
        """Seconds that compiled code saves, about."""
        (n, _), size = self.X.shape, self.X.dtype.itemsize
        inputs, *layers = self.network.sizes
        read = self.X.nnz / n if issparse(self.X) else inputs  # numbers of a row that products take
        flop = 6 * n * sum(a * b for a, b in pairwise((read, *layers)))  # of an epoch
        step = STEP + parameter_count(self.network.sizes) * size * BYTE
        return float(self.epochs * (-(-n // self.batch) * step + flop * size * FLOP))


could_save: defaultdict[str, float] = defaultdict(float)  # seconds, by kind, of the fits of this process
marked: set[Path] = set()  # by this process


def choose(fit: Fit) -> Backend:
    """The backend for a fit where none was asked for.

    Compilation happens once for a kind of fit, and is kept on disk. Until it is there NumPy runs, as long as the fits
    of this process together have lost less time by it than compilation takes: in the end at most twice the least.
    """
    gpu, plain = load("cupy"), load("numpy")
    if isinstance(gpu, Backend) and not issparse(fit.X):
        return gpu
    could_save[fit.kind] += fit.gain
    saved = could_save[fit.kind]
    if saved > LOAD and ("numba" in sys.modules or sum(could_save.values()) > LOAD + IMPORT):
        compiled = load("numba")
        if isinstance(compiled, Backend) and (saved > COMPILE or is_marked(fit)):
            return compiled
    assert isinstance(plain, Backend)  # it works everywhere
    return plain


def mark_of(fit: Fit) -> Path | None:
    """The file beside the compiled code that says that it holds what this kind of fit needs; None if none is kept."""
    from fastmlp.backends import compiled, compiled_update
    from fastmlp.kernels.cpu import sparse

    folder = compiled.epoch_in_phases._cache.cache_path
    if folder is None:
        return None
    zeros = "csr" if issparse(fit.X) else sparse.worth_marking(fit.X)
    return Path(folder) / f"fastmlp-{compiled_update.VERSION}-{fit.kind}-{zeros}.kept"


def is_marked(fit: Fit) -> bool:
    """Whether this kind of fit has been compiled here, by this process or another."""
    path = mark_of(fit)
    return path is not None and path.exists()


def is_compiled(fit: Fit) -> None:
    """Remember, for later processes too, that this kind of fit has been compiled."""
    could_save[fit.kind] += COMPILE
    path = mark_of(fit)
    if path is not None and path not in marked and path.parent.is_dir():
        path.touch()
        marked.add(path)
