"""When training ends: the score or the loss no longer improves. The rule is scikit-learn's, its counts included."""

from __future__ import annotations

import math
from typing import Any

from fastmlp.estimators.engine import Engine
from fastmlp.schedules import Schedule


class Patience:
    """Counts, on the estimator's own attributes, the epochs in a row that brought nothing, and keeps the best weights.

    An epoch of the training loss brings something if it undercuts the best by `tol`; of the validation score, if it
    reaches the best plus `tol`. NaN counts as progress, as in scikit-learn.
    """

    def __init__(self, model: Any, engine: Engine, incremental: bool):
        self.model, self.engine, self.incremental = model, engine, incremental
        scored = hasattr(model, "best_loss_") and model.best_loss_ is None
        if not hasattr(model, "loss_curve_") or scored != model.early_stopping:
            model.loss_curve_ = vars(model).get("loss_curve_", [])
            model._no_improvement_count = 0
            model.best_loss_ = None if model.early_stopping else math.inf
            model.validation_scores_ = [] if model.early_stopping else None
            model.best_validation_score_ = -math.inf if model.early_stopping else None
            vars(model).pop("_best", None)
        if model.early_stopping and not (incremental and "_best" in vars(model)):
            model._best = engine.parameters.copy()  # (P,)
        if incremental and model.early_stopping:
            model.stopped_ = False

    def validated(self, score: float) -> None:
        """The weights in place have this score: keep them if none was better."""
        model = self.model
        if not model.early_stopping:
            return
        model.validation_scores_.append(score)
        self.bar = model.best_validation_score_ + model.tol
        if score > model.best_validation_score_:
            model.best_validation_score_ = score
            self.engine.download()
            model._best[:] = self.engine.parameters  # (P,)

    def count(self) -> None:
        """Count the newest epoch."""
        model = self.model
        if model.early_stopping:
            stale = model.validation_scores_[-1] < self.bar
        else:
            loss = model.loss_curve_[-1]
            stale = loss > model.best_loss_ - model.tol
            model.best_loss_ = loss if loss < model.best_loss_ else model.best_loss_
        model._no_improvement_count = model._no_improvement_count + 1 if stale else 0

    def is_over(self, schedule: Schedule) -> bool:
        """Whether training is to end; before that, the schedule may go on with smaller steps."""
        model = self.model
        if model._no_improvement_count <= model.n_iter_no_change:
            return False
        slower = schedule.slow_down()
        if model.verbose:
            what = "Validation score did not" if model.early_stopping else "Training loss did not"
            too_small = "Learning rate too small. " if schedule.kind == "adaptive" else ""
            then = f"Setting learning rate to {schedule.learning_rate:f}" if slower else f"{too_small}Stopping."
            print(f"{what} improve more than tol={model.tol:f} for {model.n_iter_no_change} consecutive epochs. {then}")
        if slower:
            model._no_improvement_count = 0
        return not slower

    def finish(self) -> None:
        """Put the best weights in place: after fit, and when partial_fit has run out of patience."""
        model = self.model
        if not model.early_stopping:
            return
        if self.incremental:
            model.stopped_ = bool(model._no_improvement_count > model.n_iter_no_change)
            if not model.stopped_:
                return
        self.engine.parameters[:] = model._best  # (P,)
        self.engine.upload()
