"""The regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import d2_pinball_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from fastmlp.estimators.base import BaseMLP, keep
from fastmlp.estimators.constraints import CONSTRAINTS, real


class MLPRegressor(RegressorMixin, BaseMLP):
    """A dense network that predicts numbers: scikit-learn's MLPRegressor, faster and with more to set.

    The parameters that scikit-learn has mean what they mean there, and one `random_state` gives the model it gives.

    Parameters
    ----------
    loss : {"squared_error", "poisson", "absolute_error", "huber", "quantile"}
        "poisson" predicts exp(z) of targets from 0 on.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, \
beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn, which documents them. Further choices: `activation` "leaky_relu", "elu", "gelu" (the form
        with tanh), "silu", or a sequence with one name for each hidden layer; `solver` "adamw"; `learning_rate`
        "linear", "cosine", "one_cycle" and "step", for every solver that takes steps, by the part of `max_iter` done.
    huber_delta : float
        Where loss="huber" goes over from squared to absolute errors.
    quantile : float or sequence of float
        What loss="quantile" predicts; of several at once, each is a column of `predict`.
    dropout : float
        Share of hidden units left out in each step of the training, in [0, 1).
    clip_norm : float, optional
        The Euclidean norm that a step's gradient is cut down to where it is longer.
    weight_decay : float, optional
        Share of a weight, times the rate, taken off it in each step of solver="adamw"; None is 0.01. Apart from
        `alpha`, the L2 penalty in the loss.
    warmup_epochs : float
        Epochs, or a part of one, over which the rate rises from 0.
    decay_every, decay_factor
        learning_rate="step" multiplies the rate by `decay_factor` every `decay_every` epochs.
    scoring : str or callable, optional
        What early stopping goes by, greater being better: R^2 where None, "loss" for minus the loss, the name of a
        scorer of scikit-learn's, or a function of (estimator, X, y).
    weight_averaging : float, optional
        Decay of a mean of the weights after each epoch, in (0, 1); the mean is validated and kept.
    callbacks : function, object or sequence of them, optional
        A function is called with the estimator after each epoch; an object where it has methods on_fit_begin,
        on_epoch_end, on_fit_end. One that returns True after an epoch ends the training.
    progress : bool
        Show a live table on a terminal, a line an epoch elsewhere, on standard error.
    backend : {"auto", "numpy", "numba", "cupy"}
        Where it runs. "auto" takes a GPU that works; else compiled code, where it is compiled already or saves more
        time than its compilation takes; else NumPy.
    precision : {"float32", "float64", "tf32", "float16", "bfloat16"}, optional
        Type of the weights; the last three keep float32 weights and round what products take. None keeps X's type.
    threads : int, optional
        CPU threads at most. None is all in the main thread, one in any other, and no more than OMP_NUM_THREADS.

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        Weights (fan_in, fan_out) and biases (fan_out,) of each layer.
    history_ : fastmlp.History
        Loss, score and seconds of every epoch, for the training and what it was validated on.
    loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, n_iter_, t_, n_layers_, n_outputs_, \
out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn.
    stopped_ : bool
        After `partial_fit` with `validation_data` and early_stopping=True: it brought nothing `n_iter_no_change` times
        in a row, and the best weights were put back.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = MLPRegressor(max_iter=20, random_state=0, learning_rate_init=0.1).fit(X, y)
    >>> model.predict(X[:2]).shape
    (2,)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's own name and form)
        **CONSTRAINTS,
        "loss": [StrOptions({"squared_error", "poisson", "absolute_error", "huber", "quantile"})],
        "huber_delta": real(0, closed="neither"),
        "quantile": [*real(0, 1, "neither"), "array-like"],
    }

    def __init__(
        self, loss="squared_error", hidden_layer_sizes=(100,), activation="relu", *, solver="adam", alpha=0.0001,
        batch_size="auto", learning_rate="constant", learning_rate_init=0.001, power_t=0.5, max_iter=200, shuffle=True,
        random_state=None, tol=1e-4, verbose=False, warm_start=False, momentum=0.9, nesterovs_momentum=True,
        early_stopping=False, validation_fraction=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8, n_iter_no_change=10,
        max_fun=15000, huber_delta=1.0, quantile=0.5, dropout=0.0, clip_norm=None, weight_decay=None, warmup_epochs=0,
        decay_every=30, decay_factor=0.1, scoring=None, weight_averaging=None, callbacks=None, progress=False,
        backend="auto", precision=None, threads=None,
    ):  # fmt: skip
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array or sparse matrix (N, I)
        y
            Numbers (N,) or (N, O).
        sample_weight : array (N,), optional
        validation_data : tuple, optional
            (X, y) or (X, y, sample_weight) to measure after each epoch, for `history_` and, where it is set, early
            stopping, which then holds no rows of X out.

        Raises
        ------
        ValueError
            The data cannot be used, or parameters do not go together. Nothing has been trained then.

        Warns
        -----
        sklearn.exceptions.ConvergenceWarning
            `max_iter` came before the end of the progress.
        """
        return self._fit(X, y, sample_weight, validation_data, incremental=False)

    @available_if(lambda self: self._is_stochastic())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> Self:
        """One epoch on rows X (N, I) with targets y (N,) or (N, O), going on from the weights at hand."""
        return self._fit(X, y, sample_weight, validation_data, incremental=True)

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each row X (N, I) -> (N,), or (N, O) for several targets or quantiles."""
        z = self._outputs(X)  # (N, O)
        y = np.exp(z) if self.out_activation_ == "exp" else z  # (N, O)
        return y[:, 0] if y.shape[1] == 1 else y

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2 of `predict` on rows X (N, I), y (N,) or (N, O); for several quantiles the mean of their D^2 instead."""
        if len(self._quantiles()) == 1:
            return float(super().score(X, y, sample_weight))
        predicted = self.predict(X)  # (N, O)
        scores = [
            d2_pinball_score(y, predicted[:, o], sample_weight=sample_weight, alpha=q)
            for o, q in enumerate(self._quantiles())
        ]
        return float(np.mean(scores))

    def _quantiles(self) -> tuple[float, ...]:
        """The quantiles to predict; (1/2,) where the loss is another one."""
        if self.loss != "quantile":
            return (0.5,)
        return tuple(float(q) for q in np.ravel(self.quantile))

    def _checked(self, X: Any, y: Any, types: Any, reset: bool) -> tuple[Any, Any]:
        X, y = self._validated(X, y, types, reset, y_numeric=True)
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _learn_targets(self, y: Any, incremental: bool, classes: Any) -> None:
        if self.loss == "poisson" and y.min() < 0:
            raise ValueError(f"y: expected no negative targets for loss='poisson'; got {y.min()}")
        quantiles = self._quantiles()
        if not quantiles or not all(0 < q < 1 for q in quantiles):
            raise ValueError(f"quantile: expected numbers between 0 and 1; got {self.quantile!r}")
        if len(quantiles) > 1 and y.ndim == 2:
            raise ValueError(f"quantile: several quantiles are for one target; got {y.shape[1]}; fit one at a time")

    def _encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        targets = y[:, None] if y.ndim == 1 else y  # (N, O)
        return np.ascontiguousarray(np.repeat(targets, len(self._quantiles()), axis=1), dtype)  # (N, O)

    def _weighted(self, y: Any, weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        return weight

    def _out_activation(self) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    def _loss(self, outputs: int, dtype: np.dtype) -> tuple[str, tuple[float, ...]]:
        if self.loss == "huber":
            return "huber", (float(self.huber_delta),) * outputs
        if self.loss == "quantile":
            return "quantile", self._quantiles() * (outputs // len(self._quantiles()))
        return self.loss, ()

    def _loss_share(self) -> float:
        # scikit-learn reports the mean over outputs of the squared error, and takes the gradient of the sum.
        return 1 / self.n_outputs_ if self.loss == "squared_error" else 1.0

    def _one_label(self) -> bool:
        return False
