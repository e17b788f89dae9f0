"""What the classifier and the regressor share: data checked, weights drawn, one of the solvers run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_consistent_length,
    check_is_fitted,
    validate_data,
)

from fastmlp.backends import load, parameter_type, select
from fastmlp.backends.base import Backend
from fastmlp.backends.numba_ways import in_tiles
from fastmlp.backends.threads import cores
from fastmlp.device_arrays import lies_on_gpu
from fastmlp.estimators.choice import Fit, choose, is_compiled
from fastmlp.estimators.constraints import REDUCED, STOCHASTIC, check_activations, check_together, unchanged_if_refused
from fastmlp.estimators.data import Data, checked_on_gpu, on_host
from fastmlp.estimators.draws import start_values
from fastmlp.estimators.engine import Engine, packed, thread_limit
from fastmlp.estimators.fitting import StochasticFit, fit_stochastic
from fastmlp.estimators.lbfgs import fit_lbfgs
from fastmlp.estimators.optimizer import Optimizer
from fastmlp.history import History
from fastmlp.network import Network

FLOATS = (np.float64, np.float32)


class BaseMLP(BaseEstimator, ABC):
    """A dense network as an estimator; see its subclasses."""

    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    _engine: Engine
    _optimizer: Optimizer

    @abstractmethod
    def _learn_targets(self, y: Any, incremental: bool, classes: Any) -> None:
        """Keep what y says of the outputs, and `classes`, which partial_fit may be told, for the first time or again.

        Raises ValueError where it does not fit what an earlier fit kept.
        """

    @abstractmethod
    def _encode(self, y: Any, dtype: np.dtype) -> np.ndarray:
        """Checked targets as the network takes them: class codes (N,) int32, or numbers (N, O) of `dtype`."""

    @abstractmethod
    def _out_activation(self) -> str:
        """What scikit-learn calls the activation of the last layer."""

    @abstractmethod
    def _loss(self, outputs: int, dtype: np.dtype) -> tuple[str, tuple[float, ...]]:
        """The network's loss and its numbers, once `out_activation_` is set."""

    @abstractmethod
    def _loss_share(self) -> float:
        """The loss that is reported over the network's."""

    @abstractmethod
    def _one_label(self) -> bool:
        """Whether each row has one label, so that answers can be counted."""

    @abstractmethod
    def _checked(self, X: Any, y: Any, types: Any, reset: bool) -> tuple[Any, Any]:
        """X (N, I) and y, checked as scikit-learn checks them, X of one of the floating `types`."""

    @abstractmethod
    def _weighted(self, y: Any, weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        """The weights of rows (N,), with those of their classes; None where all are 1."""

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation_data: Any, incremental: bool, classes: Any = None
    ) -> Self:
        """What fit and partial_fit do."""
        check_activations(self.activation)
        check_together(self, incremental, validation_data)
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        with unchanged_if_refused(self):
            X, y = self._checked(self._in_place(X), on_host(y), self._types(first), first)
            weight = None if sample_weight is None else checked_weight(sample_weight, y)  # (N,)
            self._learn_targets(y, incremental, classes)
            data = Data(X, y, self._encode(y, X.dtype), self._weighted(y, weight, incremental))
            validation = None if validation_data is None else self._checked_validation(validation_data, data)
            self._random_state = check_random_state(self.random_state)
            fit = self._prepare_network(data, first)
            engine = self._engine
            steps = None if self.solver == "lbfgs" else StochasticFit(self, engine, data, validation, incremental)
        if steps is None:
            fit_lbfgs(self, engine, data)
        else:
            fit_stochastic(steps, incremental)
        if engine.backend.name == "numba":
            is_compiled(fit)
        if not np.isfinite(engine.parameters).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                "preprocessed."
            )
        return self

    def _in_place(self, X: Any) -> Any:
        """X where it lies if that is a GPU and the network runs there, else on the host."""
        if not lies_on_gpu(X):
            return on_host(X)
        if self.backend == "auto" and "_engine" in vars(self):
            on_gpu = self._engine.backend.name == "cupy"
        else:
            on_gpu = self.backend in ("auto", "cupy") and isinstance(load("cupy"), Backend)
        return X if on_gpu else on_host(X)

    def _validated(self, X: Any, y: Any, types: Any, reset: bool, **checks: Any) -> tuple[Any, Any]:
        """X (N, I) and y as scikit-learn's validate_data leaves them; rows on a GPU stay there."""
        checks |= {"multi_output": True}
        if not lies_on_gpu(X):
            return validate_data(  # type: ignore[no-any-return]
                self, X, y, accept_sparse="csr", dtype=types, order="C", reset=reset, **checks
            )
        X = checked_on_gpu(self, X, types, reset)
        y = validate_data(self, y=y, reset=False, **checks)
        check_consistent_length(X, y)
        return X, y

    def _types(self, first: bool) -> Any:
        """The floating types that X keeps; any other becomes the first of them."""
        if not first:
            return self.coefs_[0].dtype
        if self.precision is None:
            return FLOATS
        return np.float64 if self.precision == "float64" else np.float32  # fewer bits are for operands of products

    def _checked_validation(self, given: Any, data: Data) -> Data:
        """The user's own rows to validate on, with targets like those of the `data` to train on."""
        if not isinstance(given, tuple | list) or len(given) not in (2, 3):
            raise ValueError(f"validation_data: expected (X, y) or (X, y, sample_weight); got {type(given).__name__}")
        dtype = data.X.dtype
        X, y = self._checked(self._in_place(given[0]), on_host(given[1]), dtype, False)
        weight = None if len(given) == 2 else checked_weight(given[2], y)  # (N,)
        codes = self._encode(y, dtype)
        if codes.shape[1:] != data.codes.shape[1:]:  # kernels would read beyond their end
            expected = (y.shape[0], *data.y.shape[1:])
            raise ValueError(f"validation_data: expected y of shape {expected}, as in training; got {y.shape}")
        return Data(X, y, codes, weight)

    def _prepare_network(self, data: Data, first: bool) -> Fit:
        """The engine, with start values or the weights of the fit before, and what it is to do."""
        hidden = np.ravel(self.hidden_layer_sizes).tolist()
        if any(not isinstance(units, int) or units <= 0 for units in hidden):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        codes, dtype = data.codes, data.X.dtype
        self.n_outputs_ = len(self.classes_) if codes.ndim == 1 else codes.shape[1]
        sizes = (data.X.shape[1], *hidden, self.n_outputs_)
        if first:
            for name in ("_engine", "_optimizer", "loss_curve_", "_best"):
                self.__dict__.pop(name, None)
            self.n_iter_ = self.t_ = 0
            self.n_layers_, self.out_activation_ = len(sizes), self._out_activation()
            names = self._activations(len(hidden))
            last = names[-1] if names else self.activation
            parameters = start_values(sizes, (*names, last), self._random_state, dtype)  # (P,)
        else:
            kept, parameters = packed(self.coefs_, self.intercepts_)
            if kept != sizes:
                raise ValueError(
                    f"expected layers of {kept} units, as in the fit before; got {sizes}: go on with the same "
                    "hidden_layer_sizes, columns and outputs, or fit anew with warm_start=False"
                )
            if self.out_activation_ != self._out_activation():
                raise ValueError(
                    f"loss: expected one whose outputs pass through {self.out_activation_!r}, as in the fit before; "
                    f"got {self.loss!r}, through {self._out_activation()!r}: fit anew with warm_start=False"
                )
        if first or not hasattr(self, "history_"):
            self.history_ = History()
        n = data.X.shape[0]
        batch = n if self.solver == "lbfgs" else min(n, 200 if isinstance(self.batch_size, str) else self.batch_size)
        network = self._network(sizes, dtype)
        tiles = in_tiles(sizes, batch, thread_limit(self.threads) or cores(), self.clip_norm or 0.0)
        fit = Fit(network, self.solver, data.X, data.weight is not None, self.shuffle, batch, self.max_iter, tiles)
        self._build(network, parameters, self._backend_for(fit))
        return fit

    def _network(self, sizes: tuple[int, ...], dtype: np.dtype) -> Network:
        """The network of layers of `sizes` units that the parameters describe."""
        loss, numbers = self._loss(sizes[-1], dtype)
        return Network(sizes, self._activations(len(sizes) - 2), loss, numbers, float(self.dropout))

    def _backend_for(self, fit: Fit) -> Backend:
        """The backend that was asked for, or where that is "auto", the one at hand or the best for the fit."""
        engine = vars(self).get("_engine")
        if self.backend != "auto":
            return select(self.backend).backend
        if engine is not None:
            return engine.backend  # type: ignore[no-any-return]
        return select("auto").backend if self.precision in REDUCED else choose(fit)

    def _activations(self, hidden: int) -> tuple[str, ...]:
        """The activation of each hidden layer."""
        return (self.activation,) * hidden if isinstance(self.activation, str) else tuple(self.activation)

    def _build(self, network: Network, parameters: np.ndarray, backend: Backend) -> None:
        """An engine that starts from `parameters` (P,); the one at hand where it is of the same network."""
        if self.precision is not None:
            parameter_type(backend, self.precision)  # raises where it cannot compute so
        threads = thread_limit(self.threads)
        engine = vars(self).get("_engine")
        if engine is not None and engine.fits(backend, network, parameters.dtype, threads, self.precision):
            engine.take(self.coefs_, self.intercepts_)
            self.coefs_, self.intercepts_ = list(engine.coefs), list(engine.intercepts)
            return
        if engine is not None and hasattr(self, "_optimizer"):
            self._optimizer = self._optimizer.saved(engine)
        self._engine = Engine(backend, network, parameters, threads, self.precision)
        # Lists of their own: an array that someone puts into them must not get into the engine's.
        self.coefs_, self.intercepts_ = list(self._engine.coefs), list(self._engine.intercepts)

    def _outputs(self, X: Any, *, softmax: bool = False) -> np.ndarray:
        """The last layer's z of raw rows X (N, I), or the `softmax` of it in a network that ends so -> (N, O)."""
        check_is_fitted(self)
        if "_engine" not in vars(self):  # it stayed behind when the estimator was pickled
            sizes, parameters = packed(self.coefs_, self.intercepts_)
            name = "numpy" if self.backend == "auto" and self.precision not in REDUCED else self.backend
            self._build(self._network(sizes, parameters.dtype), parameters, select(name).backend)
        X, dtype = self._in_place(X), self.coefs_[0].dtype
        if lies_on_gpu(X):
            X = checked_on_gpu(self, X, dtype, False)
        else:
            X = validate_data(self, X, accept_sparse="csr", dtype=dtype, order="C", reset=False)
        self._engine.take(self.coefs_, self.intercepts_)
        return np.asarray(self._engine.outputs(X, softmax=softmax and self.out_activation_ == "softmax"))

    def to_sklearn(self) -> Any:
        """A fitted estimator of scikit-learn's with a copy of the weights; it predicts the same.

        What scikit-learn has no word for, and only training needs, is left behind. Raises ValueError for activations
        that it does not have.
        """
        from fastmlp.estimators.convert import to_sklearn

        return to_sklearn(self)

    @classmethod
    def from_sklearn(cls, model: Any, **options: Any) -> Self:
        """A fitted estimator with a copy of the weights of a fitted one of scikit-learn's.

        `options` are further parameters, such as backend. Raises ValueError for an estimator of another kind.
        """
        from fastmlp.estimators.convert import from_sklearn

        return from_sklearn(cls, model, **options)  # type: ignore[no-any-return]

    def to_onnx(self) -> Any:
        """The fitted network as an ``onnx.ModelProto``, to predict with any ONNX runtime.

        It takes "X" (N, I) of the weights' type. A classifier gives "label" and "probabilities", as `predict` and
        `predict_proba`; a regressor gives "y". Raises ImportError where onnx is not installed (the extra onnx).
        """
        from fastmlp.estimators.onnx import to_onnx

        return to_onnx(self)

    def _is_stochastic(self) -> bool:
        """Whether there is a partial_fit; raises the reason why not."""
        if self.solver not in STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        engine = state.pop("_engine", None)  # built again when it is needed
        if engine is not None and "_optimizer" in state:
            state["_optimizer"] = state["_optimizer"].saved(engine)
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def checked_weight(weight: Any, y: Any) -> np.ndarray:
    """The weights (N,) of the rows that y has the targets of. Raises ValueError where they cannot be used."""
    return np.asarray(_check_sample_weight(on_host(weight), y, dtype=np.float64))


def keep(model: Any, given: dict[str, Any]) -> None:
    """Keep the arguments of a constructor, as they were given, under their own names."""
    for name, value in given.items():
        if name != "self":
            setattr(model, name, value)
