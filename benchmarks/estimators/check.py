"""The same seed must give the same model: what comes out is compared with scikit-learn before a time counts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.peers.check import WrongResult

from .work import Fitted

EPOCHS = 30  # over which loss curves must agree; later, roundings have grown
CLOSE = {"float64": 1e-6, "float32": 1e-3}  # relative, of losses
SCORE = 0.05  # between the scores after all epochs
NET = 1e-3  # distance of a net's parameters from those of its own fit, as a share of their length


def as_expected(expected: Fitted) -> Callable[[str, Fitted], None]:
    """check(name, fitted), which raises WrongResult."""

    def check(name: str, found: Fitted) -> None:
        limit = CLOSE[expected.dtype]
        for epoch, (theirs, ours) in enumerate(zip(expected.losses[:EPOCHS], found.losses[:EPOCHS], strict=False)):
            if not abs(ours - theirs) <= limit * abs(theirs):
                raise WrongResult(f"{name}: the loss of epoch {epoch + 1} is {ours!r}, scikit-learn's is {theirs!r}")
        if min(len(expected.losses), EPOCHS) != min(len(found.losses), EPOCHS):
            raise WrongResult(f"{name}: {len(found.losses)} epochs, scikit-learn took {len(expected.losses)}")
        apart = np.abs(np.subtract(found.scores, expected.scores)).max()
        if not apart <= SCORE:
            raise WrongResult(f"{name}: a score is {apart:.3f} from scikit-learn's, expected {SCORE} at most")

    return check


def same_nets(expected: np.ndarray) -> Callable[[str, np.ndarray], None]:
    """check(name, parameters), both (nets, P); raises WrongResult."""

    def check(name: str, found: np.ndarray) -> None:
        apart = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)  # (nets,)
        if not apart.max() <= NET:
            raise WrongResult(f"{name}: net {apart.argmax()} is {apart.max():.1e} from what its own fit gives")

    return check
