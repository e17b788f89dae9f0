"""To scikit-learn's own classes and back: the same weights, the same predictions."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import sklearn.neural_network
from sklearn.utils.validation import check_is_fitted

from fastmlp.schedules import PLAIN

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")  # that scikit-learn has
FITTED = (
    "classes_", "_label_binarizer", "feature_names_in_", "n_features_in_", "n_layers_", "n_outputs_", "out_activation_",
    "n_iter_", "t_", "loss_", "loss_curve_", "best_loss_", "validation_scores_", "best_validation_score_",
    "_no_improvement_count", "_random_state",
)  # fmt: skip


def to_sklearn(model: Any) -> Any:
    """A fitted estimator of scikit-learn's with a copy of the weights; it predicts the same.

    What scikit-learn has no word for, and only training needs, is left behind: the extra losses, schedules, dropout.
    Raises ValueError for activations that it does not have.
    """
    check_is_fitted(model)
    names = {model.activation} if isinstance(model.activation, str) else set(model.activation)
    if len(names) > 1 or not names <= set(ACTIVATIONS):
        raise ValueError(
            f"to_sklearn: scikit-learn has {', '.join(ACTIVATIONS)}, one for all layers; got "
            f"{model.activation!r}; use to_onnx to predict elsewhere"
        )
    kind = getattr(sklearn.neural_network, type(model).__name__)
    common = {name: getattr(model, name) for name in kind().get_params()}
    common["activation"] = names.pop() if names else "relu"
    common["solver"] = "adam" if model.solver == "adamw" else model.solver
    common["learning_rate"] = model.learning_rate if model.learning_rate in PLAIN else "constant"
    if "loss" in common:
        common["loss"] = "poisson" if model.loss == "poisson" else "squared_error"
    return with_fitted(kind(**common), model)


def from_sklearn(kind: type, model: Any, **options: Any) -> Any:
    """A fitted estimator of ours, of class `kind`, with a copy of the weights of a fitted one of scikit-learn's."""
    check_is_fitted(model)
    if type(model).__name__ != kind.__name__:
        raise ValueError(f"from_sklearn: expected a fitted {kind.__name__} of scikit-learn's; got {model!r}")
    return with_fitted(kind(**{**model.get_params(), **options}), model)


def with_fitted(new: Any, model: Any) -> Any:
    """`new` with copies of what `model` learnt."""
    for name in FITTED:
        if hasattr(model, name):
            setattr(new, name, deepcopy(getattr(model, name)))
    new.coefs_ = [np.array(W) for W in model.coefs_]  # (fan_in, fan_out)
    new.intercepts_ = [np.array(b) for b in model.intercepts_]  # (fan_out,)
    return new
