"""solver="lbfgs": the whole loss at once, through scipy.optimize."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

from fastmlp.estimators.data import Data
from fastmlp.estimators.engine import Engine
from fastmlp.estimators.weights import BatchWeights
from fastmlp.network import layer_views
from fastmlp.optimizers import Settings


def fit_lbfgs(model: Any, engine: Engine, data: Data) -> None:
    """Move the engine's parameters to a minimum of loss + l2 / 2 * |W|^2, in float64 whatever their own type is.

    Byrd, Lu, Nocedal and Zhu, "A limited memory algorithm for bound constrained optimization", 1995.

    Warns
    -----
    sklearn.exceptions.ConvergenceWarning
        It stopped before the gradient fell below `tol`.
    """
    wide = np.dtype(np.float64)
    codes = data.codes if data.codes.ndim == 1 else data.codes.astype(wide, copy=False)
    own = Engine(
        engine.backend, engine.network, engine.parameters.astype(wide), engine.threads
    )  # line searches need it
    learner = own.new_learner("sgd", Settings(), None, 0)
    weight, l2 = BatchWeights(len(codes), len(codes), model.alpha, data.weight, wide).arranged(None)
    rows, strength = own.rows(data.X.astype(wide, copy=False), codes, weight), 0.0 if l2 is None else float(l2[0])

    def loss_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        own.parameters[:] = x  # (P,)
        own.upload()
        loss, g = learner.gradient(rows)
        g = np.array(g)  # (P,)
        for W, dW in zip(own.coefs, layer_views(g, own.network.sizes)[0], strict=True):
            dW += strength * W  # (fan_in, fan_out)
        return loss + penalty(own, strength), g

    def after(intermediate_result: Any) -> None:
        loss = float(intermediate_result.fun)
        model.history_.append((loss,), None, None)
        if model.verbose:
            print(f"Iteration {len(model.history_)}, loss = {loss:.8f}")

    with own.in_use():
        found = minimize(
            loss_and_gradient, own.parameters.copy(), method="L-BFGS-B", jac=True, callback=after,
            options={"maxfun": model.max_fun, "maxiter": model.max_iter, "gtol": model.tol},
        )  # fmt: skip
        own.parameters[:] = found.x  # (P,)
    squares = penalty(own, strength)
    model.loss_ = model._loss_share() * (float(found.fun) - squares) + squares
    model.n_iter_ = min(int(found.nit), model.max_iter)
    engine.parameters[:] = own.parameters  # (P,)
    engine.upload()
    if found.status != 0:
        warnings.warn(
            f"lbfgs failed to converge after {found.nit} iteration(s) (status={found.status}): {found.message}; "
            "increase max_iter or max_fun, or bring the columns to a common scale",
            ConvergenceWarning,
            stacklevel=5,
        )


def penalty(engine: Engine, strength: float) -> float:
    """strength / 2 * |W|^2."""
    return 0.5 * strength * sum(float(np.vdot(W, W)) for W in engine.coefs)
