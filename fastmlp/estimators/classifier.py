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
from sklearn.utils.validation import validate_data

from fastmlp.activations import logistic
from fastmlp.estimators.base import BaseMLP, keep
from fastmlp.estimators.constraints import CONSTRAINTS, real
from fastmlp.network import softmax


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A dense network that tells classes apart; scikit-learn's MLPClassifier, with more options."""

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
        """Train on rows X (N, I) with labels y (N,), or an indicator matrix y (N, O) of 0 and 1."""
        return self._fit(X, y, sample_weight, validation_data, incremental=False)

    @available_if(lambda self: self._is_stochastic())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, validation_data: Any = None
    ) -> Self:
        """One epoch on rows X (N, I) with labels y (N,), going on from the weights at hand."""
        if getattr(self, "classes_", None) is None:
            if classes is None:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            several = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if several else classes)
            self.classes_ = unique_labels(classes)
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {self.classes_!r}"
            )
        return self._fit(X, y, sample_weight, validation_data, incremental=True)

    def predict(self, X: Any) -> Any:
        """The class of each row X (N, I) -> (N,); of a multilabel network the indicator matrix (N, O)."""
        z = self._logits(X)  # (N, O)
        if self.out_activation_ == "softmax":
            return self.classes_[z.argmax(axis=1)]
        if self._one_label() and len(self.classes_) == 2:
            return self.classes_[(logistic(z[:, 0]) > 0.5).astype(int)]
        return self._label_binarizer.inverse_transform(logistic(z))

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class, in the order of ``classes_``, for rows X (N, I) -> (N, O)."""
        z = self._logits(X)  # (N, O)
        if self.out_activation_ == "softmax":
            return softmax(z)  # (N, O)
        p = logistic(z)  # (N, O)
        return np.hstack([1 - p, p]) if self.n_outputs_ == 1 else p  # (N, 2) or (N, O)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self.predict_proba(X)))  # (N, O)

    def _checked(self, X: Any, y: Any, types: Any, reset: bool) -> tuple[Any, Any]:
        X, y = validate_data(self, X, y, accept_sparse="csr", multi_output=True, dtype=types, order="C", reset=reset)
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _learn_targets(self, y: Any, incremental: bool) -> None:
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return
        classes = unique_labels(y)
        if self.warm_start and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )

    def _encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        if self._out_activation() == "softmax":
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
