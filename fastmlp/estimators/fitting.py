"""Fitting by steps: an estimator's parameters, data and network, put together and run on the shared loop."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from fastmlp.backends.base import Rows
from fastmlp.estimators.averaging import Averaging
from fastmlp.estimators.callbacks import Callbacks
from fastmlp.estimators.data import Data, split_rows
from fastmlp.estimators.draws import Orders
from fastmlp.estimators.engine import Engine
from fastmlp.estimators.optimizer import new_optimizer
from fastmlp.estimators.scoring import Validation, share_right, validator
from fastmlp.estimators.stopping import Patience
from fastmlp.estimators.weights import BatchWeights
from fastmlp.loop import DONE, INTERRUPTED, Epoch, Work, run_epochs
from fastmlp.progress import live_table

TOGETHER = 5e8  # flop of epochs that run in one call: 10 ms or less between two looks for Ctrl-C


def fit_stochastic(fit: StochasticFit, incremental: bool) -> None:
    """Run the solvers that take a step a batch: `max_iter` epochs at most, or one where `incremental`.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        After `max_iter` epochs without an end to the progress.
    UserWarning
        Ctrl-C ended the training; or batch_size is more than there are rows.
    """
    model = fit.model
    epochs = 1 if incremental else model.max_iter
    fit.callbacks.tell("on_fit_begin", model)
    with fit.engine.in_use(), live_table(epochs, model.progress) as show:
        reason = run_epochs(
            fit.learner, fit.batch, epochs, fit.next_work, fit.validate,
            [fit.record, lambda _: show(model.history_), lambda _: fit.callbacks.tell("on_epoch_end", model)],
            fit.unheard,
        )  # fmt: skip
        fit.finish()
    fit.callbacks.tell("on_fit_end", model)
    if reason == INTERRUPTED:
        warnings.warn("Training interrupted by user.", stacklevel=5)
    elif reason == DONE and not incremental:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({epochs}) reached and the optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=5,
        )


class StochasticFit:
    """One call of fit or partial_fit: what each epoch does, and what is kept of it."""

    def __init__(self, model: Any, engine: Engine, data: Data, validation: Data | None, incremental: bool):
        self.model, self.engine = model, engine
        index = None
        if model.early_stopping and validation is None:
            stratify = model._one_label() and model.n_outputs_ == 1
            index, validation = split_rows(data, model.validation_fraction, stratify, model._random_state)
        self.n = data.X.shape[0] if index is None else len(index)
        self.batch = batch_rows(model.batch_size, self.n)
        self.steps = -(-self.n // self.batch)
        self.rows = engine.rows(data.X, data.codes)
        self.orders = Orders(self.n, index, model._random_state if model.shuffle else None)
        self.callbacks = Callbacks(model.callbacks)
        self.measure = None if validation is None else validator(model, engine, validation)
        self.weights = BatchWeights(self.n, self.batch, model.alpha, data.weight, engine.parameters.dtype)
        if not (incremental and hasattr(model, "_optimizer")):
            engine.learner = None
            # Only dropout draws a seed: scikit-learn's own draws keep their places.
            model._optimizer = new_optimizer(model, model._random_state.randint(2**31) if model.dropout else 0)
        self.schedule = model._optimizer.schedule
        self.learner = model._optimizer.learner(engine)
        self.patience = Patience(model, engine, incremental)
        self.averaging = Averaging(engine, model.weight_averaging) if model.weight_averaging else None
        self.seen = model.t_
        model.n_iter_ = 0

    def next_work(self) -> Work:
        """The next epoch's rows in their order, its rates, its penalties."""
        order = self.orders.next()  # (N,)
        weight, l2 = self.weights.arranged(order)  # (N,), (steps,)
        if weight is not None:
            weight = self.engine.backend.asarray(weight)
        rates = self.schedule.rates(self.steps)  # (steps,)
        self.seen += self.n
        self.schedule.epoch_ends(self.seen)
        return Work(Rows(self.rows.X, self.rows.y, order, weight), rates, l2)

    def unheard(self) -> int:
        """Epochs from here on that may run in one call: nobody listens, and patience lasts until the last of them."""
        model = self.model
        if self.measure is not None or self.averaging is not None or self.callbacks.given or model.progress:
            return 1
        if not (model.shuffle and self.engine.on_host):
            return 1
        together = max(1.0, TOGETHER // (6 * self.engine.parameters.size * self.n))
        return int(min(together, max(1, model.n_iter_no_change + 1 - model._no_improvement_count)))

    def validate(self) -> Validation | None:
        """Measure the held-out rows, where there are some, on the weights that would be kept."""
        if self.averaging is not None:
            self.averaging.add()
        if self.measure is None:
            return None
        with nullcontext() if self.averaging is None else self.averaging.in_place():
            seen = self.measure()
            self.patience.validated(seen.score)
        return seen

    def record(self, epoch: Epoch) -> bool:
        """Write an epoch down on the estimator. Whether training is to end."""
        model, seen = self.model, epoch.validation
        self.engine.download()
        model.n_iter_ += 1
        model.t_ += self.n
        model.loss_ = model._loss_share() * epoch.train.loss + epoch.train.penalty
        model.loss_curve_.append(model.loss_)
        accuracy = share_right(model, epoch.train.accuracy) if model._one_label() else None
        model.history_.append((model.loss_, accuracy), seen, epoch.seconds)
        if model.verbose:
            print(f"Iteration {model.n_iter_}, loss = {model.loss_:.8f}")
            if model.early_stopping:
                print(f"Validation score: {seen.score:f}")
        self.patience.count()
        return self.patience.is_over(self.schedule)

    def finish(self) -> None:
        """Put the weights to keep in place."""
        self.engine.download()
        if self.averaging is not None and self.averaging.epochs:
            self.averaging.put()
        self.patience.finish()


def batch_rows(batch_size: int | str, n: int) -> int:
    """Rows of a batch."""
    if isinstance(batch_size, str):
        return min(200, n)
    if batch_size > n:
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
        )
    return int(np.clip(batch_size, 1, n))
