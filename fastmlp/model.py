"""A trained network: predictions, weights under both names, and what its training saw."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from fastmlp.backends import select
from fastmlp.backends.base import Backend, Learner, Rows
from fastmlp.device_arrays import lies_on_gpu
from fastmlp.history import History
from fastmlp.inputs import Inputs
from fastmlp.labels import encode_labels
from fastmlp.network import Network, layer_views
from fastmlp.optimizers import Settings, find
from fastmlp.report import Report


class Model:
    """Made by `fastmlp.train` and `fastmlp.load`.

    Attributes
    ----------
    network : Network
        What is computed: sizes, activations, label smoothing, dropout.
    sizes : tuple of int
        Units of each layer: inputs, hidden layers, classes.
    classes : ndarray (O,)
        The labels, sorted; column o of a prediction is ``classes[o]``.
    weights, biases : tuple of ndarray
        weights[l] (fan_in, fan_out) and biases[l] (fan_out,), views of the network's own memory.
    history : History
        Loss and accuracy for training and validation, and seconds, per epoch.
    report : Report
        Backend, threads, precision, versions, seed: what ran and why.
    """

    def __init__(
        self, backend: Backend, network: Network, parameters: np.ndarray, classes: np.ndarray, inputs: Inputs,
        history: History, report: Report, threads: int | None = None,
    ):  # fmt: skip
        self.backend, self.network, self.sizes = backend, network, network.sizes
        self.classes, self.inputs = classes, inputs
        self.history, self.report, self.threads = history, report, threads
        # A model may come from a machine that computes in fewer bits than this one can.
        precision = report.precision if report.precision in backend.precisions else None
        self.plan = backend.plan(network, parameters, threads, precision)
        worked_in = self.plan.parameters
        self.parameters = worked_in if isinstance(worked_in, np.ndarray) else parameters  # (P,) on the host
        self.weights, self.biases = layer_views(self.parameters, self.sizes)
        self._learner: Learner | None = None
        self._lock = threading.RLock()  # a plan has one set of buffers: two threads take turns

    @property
    def learner(self) -> Learner:
        """The optimizer with its state, made when a step is first taken."""
        if self._learner is None:
            report = self.report
            settings = Settings(
                beta=report.beta, weight_decay=report.weight_decay, clip=report.clip, seed=report.seed
            )  # fmt: skip
            self._learner = self.plan.learner(find(report.optimizer), settings)
        return self._learner

    @property
    def w_ih(self) -> np.ndarray:
        """The notes' W_ih (H, I): the first layer's weights, a transposed view."""
        return np.asarray(self.weights[0].T)

    @property
    def b_ih(self) -> np.ndarray:
        """The notes' b_ih (H, 1): the first layer's biases as a column, a view."""
        return np.asarray(self.biases[0][:, None])

    @property
    def w_ho(self) -> np.ndarray:
        """The notes' W_ho (O, H): the last layer's weights, a transposed view."""
        return np.asarray(self.weights[-1].T)

    @property
    def b_ho(self) -> np.ndarray:
        """The notes' b_ho (O, 1): the last layer's biases as a column, a view."""
        return np.asarray(self.biases[-1][:, None])

    def forward(self, X: Any) -> np.ndarray:
        """The notes' forward pass: probabilities yhat (N, O) of raw rows X (N, I); each row sums to 1.

        Raises DataError if X is not what the network was trained on (see `Inputs.prepare`).
        """
        return self._outputs(self.plan.probabilities, X)

    predict_proba = forward

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each raw row X (N, I) -> (N,) labels, as they were given in training.

        Raises DataError if X is not what the network was trained on (see `Inputs.prepare`).
        """
        return np.asarray(self.classes[self._outputs(self.plan.logits, X).argmax(axis=1)])

    def score(self, X: Any, y: Any) -> float:
        """The share of raw rows X (N, I) whose predicted class is y (N,), labels or one-hot rows.

        Raises DataError for a label that the training did not have, or rows that do not fit.
        """
        return self.evaluate(X, y)[1]

    def evaluate(self, X: Any, y: Any) -> tuple[float, float]:
        """Mean cross entropy and accuracy over raw rows X (N, I) with labels y (N,).

        Raises DataError for a label that the training did not have, or rows that do not fit.
        """
        rows = self._rows(X, y)
        with self._lock, self.backend.limit_threads(self.threads):
            self._upload()
            return self.plan.evaluate(rows)

    def backprop(self, X: Any, Y: Any) -> float:
        """The notes' backprop: one step of the optimizer on the batch given.

        Parameters
        ----------
        X
            (N, I) raw rows.
        Y
            (N,) labels or (N, O) one-hot rows.

        Returns
        -------
        float
            The batch's mean loss before the step.

        Raises
        ------
        DataError
            As `forward` and `score`; the weights are then unchanged.
        """
        rows = self._rows(X, Y)
        with self._lock, self.backend.limit_threads(self.threads):
            self._upload()
            rates, l2 = np.array([self.report.learning_rate]), np.array([self.report.l2])  # (1,)
            loss = self.learner.epoch(rows, len(rows), rates, l2 if self.report.l2 else None).loss
            self.download()
            return loss

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to one safetensors file, which `fastmlp.load` reads. Nothing in it is pickled.

        Raises OptionError if the file cannot be written; a file already there is replaced whole or left alone.
        """
        from fastmlp.model_io import save

        save(self, path)

    def download(self) -> None:
        """Bring the weights of a GPU's plan into the host's array; on a CPU they are there."""
        host = self.backend.to_host(self.plan.parameters)
        if host is not self.parameters:
            self.parameters[:] = host

    def _upload(self) -> None:
        """Bring the host's weights, which the user may have changed, into the plan; on a CPU they are there."""
        if self.plan.parameters is not self.parameters:
            self.plan.parameters[:] = self.backend.asarray(self.parameters)

    def _outputs(self, compute: Callable[[Any], np.ndarray], X: Any) -> np.ndarray:
        """What `compute`, of the plan, makes of raw rows X (N, I) -> (N, O)."""
        prepared = self.inputs.prepare(X, self.parameters.dtype)
        if lies_on_gpu(prepared):
            prepared = self.backend.asarray(prepared)
        with self._lock, self.backend.limit_threads(self.threads):
            self._upload()
            return compute(prepared)

    def _rows(self, X: Any, y: Any) -> Rows:
        prepared = self.inputs.prepare(X, self.parameters.dtype)
        codes, _ = encode_labels(y, len(prepared), self.classes)
        return Rows(self.backend.asarray(prepared), self.backend.asarray(codes))

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies and worker processes; the optimizer's state stays behind, and model files are never pickled."""
        parts = (
            self.network,
            self.parameters.copy(),
            self.classes,
            self.inputs,
            self.history,
            self.report,
            self.threads,
        )
        return rebuild, (self.backend.name, parts, getattr(self.backend, "device", 0))

    def __repr__(self) -> str:
        return f"<fastmlp.Model {'-'.join(map(str, self.sizes))} on {self.backend.name}, {len(self.history)} epochs>"


def rebuild(backend: str, parts: tuple[Any, ...], device: int = 0) -> Model:
    """A copy of a model, on the same backend where it is usable."""
    return Model(select(backend, device=device).backend, *parts)
