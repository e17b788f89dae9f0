"""What is measured on held-out rows after each epoch: the loss, and the score that early stopping goes by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from fastmlp.estimators.data import Data
from fastmlp.estimators.engine import Engine


class Validation(NamedTuple):
    """What held-out rows say after an epoch."""

    loss: float  # without the penalty
    accuracy: float | None  # of a classifier with one label a row; every row counts the same
    score: float  # greater is better; NaN where the network has no finite output


def validator(model: Any, engine: Engine, held_out: Data) -> Callable[[], Validation]:
    """A function that measures the network as it is.

    The score is accuracy or R^2 where `model.scoring` is None, minus the loss where it is "loss", else what the scorer
    of that name, or the callable, says of the model on the held-out rows.
    """
    X, y, codes, weight = held_out
    if weight is not None:
        weight = (weight * (len(weight) / weight.sum())).astype(engine.parameters.dtype)  # (N,)
    rows = engine.rows(X, codes, weight)
    scorer, share = model.scoring, model._loss_share()
    one_label = model._one_label()
    if isinstance(scorer, str) and scorer != "loss":
        from sklearn.metrics import get_scorer

        scorer = get_scorer(scorer)
    bare = unnamed(model)

    def score(loss: float, accuracy: float) -> float:
        if not math.isfinite(loss):
            return math.nan
        if scorer == "loss":
            return -loss
        if scorer is None and weight is None and one_label:
            return share_right(model, accuracy)
        if scorer is None:
            return float(bare.score(X, y, held_out.weight))
        return float(scorer(bare, X, y))

    def validate() -> Validation:
        loss, accuracy = engine.plan.evaluate(rows)
        loss *= share
        return Validation(loss, share_right(model, accuracy) if one_label else None, score(loss, accuracy))

    return validate


def share_right(model: Any, counted: float) -> float:
    """A classifier's share of right answers: what the network counted, or 1 where there is one class to answer."""
    return counted if len(model.classes_) > 1 else 1.0


def unnamed(model: Any) -> Any:
    """The model under another name for scorers, which hold rows without the names of their columns."""
    bare = object.__new__(type(model))
    vars(bare).update(vars(model))
    vars(bare).pop("feature_names_in_", None)
    return bare
