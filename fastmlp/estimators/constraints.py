"""What each parameter may be, in scikit-learn's form, and which do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, Options, StrOptions

from fastmlp import backends
from fastmlp.activations import ACTIVATIONS
from fastmlp.estimators.callbacks import Callbacks
from fastmlp.schedules import PLAIN, SHAPED

REDUCED = ("tf32", "float16", "bfloat16")  # precisions of operands of products, which not every backend has
STOCHASTIC = ("sgd", "adam", "adamw")


def real(low: float, high: float | None = None, closed: str = "left") -> list[Any]:
    """A number in a range."""
    return [Interval(Real, low, high, closed=closed)]


def whole(low: int) -> list[Any]:
    """A whole number from `low` on."""
    return [Interval(Integral, low, None, closed="left")]


# Of both classes. The first block is scikit-learn's own, with wider choices in activation, solver and learning_rate.
CONSTRAINTS: dict[str, list[Any]] = {
    "hidden_layer_sizes": ["array-like", *whole(1)],
    "activation": [StrOptions(set(ACTIVATIONS)), "array-like"],
    "solver": [StrOptions({"lbfgs", *STOCHASTIC})],
    "alpha": real(0),
    "batch_size": [StrOptions({"auto"}), *whole(1)],
    "learning_rate": [StrOptions({*PLAIN, *SHAPED})],
    "learning_rate_init": real(0, closed="neither"),
    "power_t": real(0),
    "max_iter": whole(1),
    "shuffle": ["boolean"],
    "random_state": ["random_state"],
    "tol": real(0),
    "verbose": ["verbose"],
    "warm_start": ["boolean"],
    "momentum": real(0, 1, "both"),
    "nesterovs_momentum": ["boolean"],
    "early_stopping": ["boolean"],
    "validation_fraction": real(0, 1),
    "beta_1": real(0, 1),
    "beta_2": real(0, 1),
    "epsilon": real(0, closed="neither"),
    "n_iter_no_change": [*whole(1), Options(Real, {np.inf})],
    "max_fun": whole(1),
    # Beyond scikit-learn.
    "dropout": real(0, 1),
    "clip_norm": [None, *real(0, closed="neither")],
    "weight_decay": [None, *real(0)],
    "warmup_epochs": real(0),
    "decay_every": whole(1),
    "decay_factor": real(0, 1, "right"),
    "scoring": [None, str, callable],
    "weight_averaging": [None, *real(0, 1, "neither")],
    "callbacks": [None, "array-like", callable],
    "progress": ["boolean"],
    "backend": [StrOptions(set(backends.NAMES))],
    "precision": [None, StrOptions({"float32", "float64", *REDUCED})],
    "threads": [None, *whole(1)],
}


def check_together(model: Any, incremental: bool, validation_data: Any) -> None:
    """Raises ValueError where a parameter has no meaning beside the others, naming both and the remedy."""
    Callbacks(model.callbacks)
    hidden = np.size(model.hidden_layer_sizes)
    full_batch = model.solver == "lbfgs"
    watched = model.early_stopping or validation_data is not None
    loss = getattr(model, "loss", None)
    refused: tuple[tuple[Any, str], ...] = (
        (
            incremental and model.early_stopping and validation_data is None,
            "partial_fit does not support early_stopping=True without validation_data=(Xv, yv): pass them",
        ),
        (full_batch and model.dropout, "dropout: solver='lbfgs' needs the same loss at every look; use 'adam'"),
        (full_batch and model.clip_norm, "clip_norm: solver='lbfgs' sets the length of its steps; use 'sgd' or 'adam'"),
        (full_batch and model.warmup_epochs, "warmup_epochs: solver='lbfgs' has no learning rate; use 'sgd' or 'adam'"),
        (
            full_batch and model.learning_rate in SHAPED,
            f"learning_rate={model.learning_rate!r}: solver='lbfgs' has no learning rate; use 'sgd' or 'adam'",
        ),
        (full_batch and model.weight_averaging, "weight_averaging: solver='lbfgs' has no epochs; use 'sgd' or 'adam'"),
        (
            full_batch and model.precision in REDUCED,
            f"precision={model.precision!r}: solver='lbfgs' needs exact gradients; use 'float64', or 'adam'",
        ),
        (full_batch and validation_data is not None, "validation_data: solver='lbfgs' has no epochs; use 'adam'"),
        (
            model.weight_decay is not None and model.solver != "adamw",
            f"weight_decay is for solver='adamw'; solver={model.solver!r} has alpha, the L2 penalty",
        ),
        (model.dropout and not hidden, "dropout: there are no hidden units to leave out; set hidden_layer_sizes"),
        (
            model.warmup_epochs and model.learning_rate == "one_cycle",
            "warmup_epochs: learning_rate='one_cycle' has a warm-up of its own; leave one of them out",
        ),
        (
            incremental and model.learning_rate in ("linear", "cosine", "one_cycle"),
            f"partial_fit with learning_rate={model.learning_rate!r}: its end is not known; use 'constant' or 'step'",
        ),
        (
            incremental and model.weight_averaging,
            "weight_averaging: partial_fit goes on from the weights it left, not from their mean; use fit",
        ),
        (
            model.scoring is not None and not watched,
            "scoring: there is nothing to score; set early_stopping=True or pass validation_data=(Xv, yv)",
        ),
        (
            not isinstance(model.activation, str) and np.size(model.activation) != hidden,
            f"activation: expected one name, or one for each of the {hidden} hidden layers; got {model.activation!r}",
        ),
        (
            loss == "focal" and getattr(model, "label_smoothing", 0),
            "label_smoothing: loss='focal' is defined for sharp targets; leave one of them out",
        ),
    )
    for wrong, message in refused:
        if wrong:
            raise ValueError(message)


def check_activations(names: Any) -> None:
    """Raises ValueError for a name in a sequence of activations that there is none of."""
    for name in () if isinstance(names, str) else names:
        if name not in ACTIVATIONS:
            raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)} for each layer; got {name!r}")


@contextmanager
def unchanged_if_refused(model: Any) -> Iterator[None]:
    """Put the attributes of an estimator back where what it was given is refused: it predicts on as it did."""
    before = dict(vars(model))
    try:
        yield
    except BaseException:
        model.__dict__ = before
        raise
