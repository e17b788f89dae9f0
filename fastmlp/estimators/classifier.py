"""The classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target, unique_labels

from fastmlp.activations import logistic
from fastmlp.estimators.base import BaseMLP, keep
from fastmlp.estimators.constraints import CONSTRAINTS, real


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A dense network that tells classes apart: scikit-learn's MLPClassifier, faster and with more to set.

    The parameters that scikit-learn has mean what they mean there, and one `random_state` gives the model it gives.

    Parameters
    ----------
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, \
beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As in scikit-learn, which documents them. Further choices: `activation` "leaky_relu", "elu", "gelu" (the form
        with tanh), "silu", or a sequence with one name for each hidden layer; `solver` "adamw"; `learning_rate`
        "linear", "cosine", "one_cycle" and "step", for every solver that takes steps, by the part of `max_iter` done.
    loss : {"log_loss", "focal"}
        "focal" is -(1 - p)^gamma log p of the right class, for one label a row (Lin et al., 2017).
    focal_gamma : float
        The gamma of loss="focal".
    label_smoothing : float
        Share of each target spread evenly over the classes, in [0, 1).
    class_weight : dict, list of dict or "balanced", optional
        Weight of each class, as in scikit-learn's other classifiers; multiplies `sample_weight`.
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
        What early stopping goes by, greater being better: accuracy where None, "loss" for minus the loss, the name of a
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
out_activation_, n_features_in_, feature_names_in_, classes_
        As in scikit-learn.
    stopped_ : bool
        After `partial_fit` with `validation_data` and early_stopping=True: it brought nothing `n_iter_no_change` times
        in a row, and the best weights were put back.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = MLPClassifier((20,), max_iter=100, learning_rate_init=0.02, random_state=0).fit(X, y)
    >>> model.predict(X[:2])
    array([0, 0])
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's own name and form)
        **CONSTRAINTS,
        "loss": [StrOptions({"log_loss", "focal"})],
        "focal_gamma": real(0, closed="neither"),
        "label_smoothing": real(0, 1),
        "class_weight": [None, dict, list, StrOptions({"balanced"})],
    }

    def __init__(
        self, hidden_layer_sizes=(100,), activation="relu", *, solver="adam", alpha=0.0001, batch_size="auto",
        learning_rate="constant", learning_rate_init=0.001, power_t=0.5, max_iter=200, shuffle=True, random_state=None,
        tol=1e-4, verbose=False, warm_start=False, momentum=0.9, nesterovs_momentum=True, early_stopping=False,
        validation_fraction=0.1, beta_1=0.9, beta_2=0.999, epsilon=1e-8, n_iter_no_change=10, max_fun=15000,
        loss="log_loss", focal_gamma=2.0, label_smoothing=0.0, class_weight=None, dropout=0.0, clip_norm=None,
        weight_decay=None, warmup_epochs=0, decay_every=30, decay_factor=0.1, scoring=None, weight_averaging=None,
        callbacks=None, progress=False, backend="auto", precision=None, threads=None,
    ):  # fmt: skip
        keep(self, locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, validation_data: Any = None) -> Self:
        """Train.

        Parameters
        ----------
        X : array or sparse matrix (N, I)
        y
            Labels (N,), or for several labels a row an indicator matrix (N, O) of 0 and 1.
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
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, validation_data: Any = None
    ) -> Self:
        """One epoch on rows X (N, I) with labels y (N,), going on from the weights at hand.

        `classes` lists all classes there will ever be; the first call needs it. See `fit` for the rest.
        """
        return self._fit(X, y, sample_weight, validation_data, incremental=True, classes=classes)

    def predict(self, X: Any) -> Any:
        """The class of each row X (N, I) -> (N,); of a multilabel network the indicator matrix (N, O)."""
        z = self._outputs(X)  # (N, O)
        if self.out_activation_ == "softmax":
            return self.classes_[z.argmax(axis=1)]
        if self._one_label() and len(self.classes_) == 2:
            return self.classes_[(logistic(z[:, 0]) > 0.5).astype(int)]
        return self._label_binarizer.inverse_transform(logistic(z))

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, in the order of ``classes_``, for rows X (N, I) -> (N, O)."""
        outputs = self._outputs(X, softmax=True)  # (N, O)
        if self.out_activation_ == "softmax":
            return outputs
        p = logistic(outputs)  # (N, O)
        return np.hstack([1 - p, p]) if self.n_outputs_ == 1 else p  # (N, 2) or (N, O)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))  # (N, O)

    def _checked(self, X: Any, y: Any, types: Any, reset: bool) -> tuple[Any, Any]:
        X, y = self._validated(X, y, types, reset)
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _learn_targets(self, y: Any, incremental: bool, classes: Any) -> None:
        known = getattr(self, "classes_", None)
        if incremental and known is None:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            several = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if several else classes)
            known = self.classes_ = unique_labels(classes)
        elif known is None or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return
        elif classes is not None and not np.array_equal(known, unique_labels(classes)):
            raise ValueError(f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}")
        found = unique_labels(y)
        if self.warm_start and set(found) != set(known):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {known}, `y` has {found}"
            )
        if len(np.setdiff1d(found, known, assume_unique=True)):
            raise ValueError(f"`y` has classes not in `self.classes_`. `self.classes_` has {known}. 'y' has {found}.")

    def _encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        if self._out_activation() == "softmax":
            if y.ndim != 1:
                raise ValueError(f"y: expected one label a row, as in the fit before; got an array of shape {y.shape}")
            codes = np.searchsorted(self.classes_, y)  # (N,)
            if codes.max() == len(self.classes_) or (self.classes_[codes] != y).any():
                raise ValueError(f"y: expected the classes of the training, {self.classes_}; got {unique_labels(y)}")
            return np.asarray(codes, np.int32)
        targets = self._label_binarizer.transform(y).astype(dtype)  # (N, O)
        if self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + self.label_smoothing / 2  # (N, O)
        return np.asarray(targets, dtype, order="C")

    def _weighted(self, y: Any, weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        if self.class_weight is None:
            return weight
        if incremental and isinstance(self.class_weight, str):
            raise ValueError(
                "class_weight='balanced' needs all labels at once, which partial_fit never sees: pass a dict made by "
                "sklearn.utils.class_weight.compute_class_weight"
            )
        factors = compute_sample_weight(self.class_weight, y)  # (N,)
        return np.asarray(factors if weight is None else factors * weight)

    def _out_activation(self) -> str:
        kind = self._label_binarizer.y_type_
        if self.loss == "focal" and kind.startswith("multilabel"):
            raise ValueError("loss='focal' is for one label a row; use loss='log_loss' for multilabel y")
        return "softmax" if kind == "multiclass" or self.loss == "focal" else "logistic"

    def _loss(self, outputs: int, dtype: np.dtype) -> tuple[str, tuple[float, ...]]:
        sharp = self.loss == "log_loss" and not self.label_smoothing and self.solver != "lbfgs"
        # scikit-learn keeps probabilities from 0 by eps before it takes their logarithm.
        ceiling = -float(np.log(np.finfo(dtype).eps)) if sharp else 0.0
        if self.out_activation_ == "logistic":
            return "logistic", (ceiling,) * outputs
        gamma = float(self.focal_gamma) if self.loss == "focal" else 0.0
        return "cross_entropy", (float(self.label_smoothing), gamma, ceiling)

    def _loss_share(self) -> float:
        return 1.0

    def _one_label(self) -> bool:
        return not self._label_binarizer.y_type_.startswith("multilabel")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
