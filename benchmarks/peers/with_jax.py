"""JAX: a whole epoch in one call of jit, lax.scan over its batches, buffers donated.

Each choice left open by that was tried both ways on a CPU: rows gathered batch by batch beat one gather of them all,
float32 pixels beat uint8 ones, and picking the label's logarithm beat a product with one-hot rows.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastmlp.network import layer_views

from .contract import Dispatched
from .jobs import BETA2, EPSILON, Job

VERSIONS = {name: version(name) for name in ("jax", "jaxlib")}
Layers = list[tuple[Any, Any]]  # W (fan_in, fan_out), b (fan_out,)
# How products are taken: the type of their operands, and what is asked of XLA.
PRODUCTS = {
    "float32": (jnp.float32, jax.lax.Precision.HIGHEST),
    "tf32": (jnp.float32, jax.lax.DotAlgorithmPreset.TF32_TF32_F32),
    "bfloat16": (jnp.bfloat16, jax.lax.Precision.DEFAULT),
}


def layers(flat: np.ndarray, sizes: tuple[int, ...]) -> Layers:
    """The parts of parameters (P,), copied: a donated buffer must be JAX's own."""
    return [(jnp.array(W), jnp.array(b)) for W, b in zip(*layer_views(flat, sizes), strict=True)]


def logits(parameters: Layers, x: Any, precision: str) -> Any:
    """x (n, I) -> (n, O)."""
    operand, product = PRODUCTS[precision]

    def affine(x: Any, W: Any, b: Any) -> Any:
        return jnp.matmul(x.astype(operand), W.astype(operand), precision=product).astype(jnp.float32) + b

    for W, b in parameters[:-1]:
        x = jnp.maximum(affine(x, W, b), 0)
    return affine(x, *parameters[-1])


def mean_loss(parameters: Layers, x: Any, y: Any, precision: str) -> Any:
    """Mean cross entropy of x (n, I), y (n,)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits(parameters, x, precision)), y[:, None], axis=1).mean()


def momentum(p: Layers, g: Layers, state: Any, rate: Any, beta: float) -> tuple[Layers, Any]:
    """v = beta v + (1 - beta) g; p = p - rate v."""
    v = jax.tree.map(lambda v, g: beta * v + (1 - beta) * g, state, g)
    return jax.tree.map(lambda p, v: p - rate * v, p, v), v


def adam(p: Layers, g: Layers, state: Any, rate: Any, beta: float) -> tuple[Layers, Any]:
    """Adam with the bias correction folded into the rate, as in `fastmlp.optimizers`."""
    m, q, t = state
    t = t + 1
    m = jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, m, g)
    q = jax.tree.map(lambda q, g: BETA2 * q + (1 - BETA2) * g * g, q, g)
    rate = rate * jnp.sqrt(1 - BETA2**t) / (1 - beta**t)
    return jax.tree.map(lambda p, m, q: p - rate * m / (jnp.sqrt(q) + EPSILON), p, m, q), (m, q, t)


RULES = {"momentum": momentum, "adam": adam}


@partial(jax.jit, static_argnames=("rule", "beta", "batch", "precision"), donate_argnames=("p", "state"))
def run_epoch(
    p: Layers, state: Any, X: Any, y: Any, order: Any, rates: Any, *, rule: str, beta: float, batch: int, precision: str
) -> tuple[Layers, Any, Any]:
    """One epoch over rows `order` (N,), or over all as they stand where it is None; parameters, state, mean loss."""

    def step(carried: tuple[Layers, Any], x: Any, labels: Any, rate: Any) -> tuple[tuple[Layers, Any], Any]:
        loss, g = jax.value_and_grad(mean_loss)(carried[0], x, labels, precision)
        return RULES[rule](carried[0], g, carried[1], rate, beta), loss * len(labels)

    if order is None:
        (p, state), total = step((p, state), X, y, rates[0])
        return p, state, total / len(y)
    steps = len(order) // batch
    whole = steps * batch
    carried, totals = jax.lax.scan(
        lambda carried, turn: step(carried, X[turn[0]], y[turn[0]], turn[1]),
        (p, state),
        (order[:whole].reshape(-1, batch), rates[:steps]),
    )
    total = totals.sum()
    if whole < len(order):  # the last batch is smaller
        carried, last = step(carried, X[order[whole:]], y[order[whole:]], rates[steps])
        total += last
    return *carried, total / len(order)


class Jax(Dispatched):
    """See `contract.Trainer`."""

    def __init__(self, job: Job):
        self.name, self.job = "JAX" if job.precision == "float32" else f"JAX {job.precision}", job
        operand, _ = PRODUCTS[job.precision]
        self.X, self.y = jnp.asarray(job.data.x, operand), jnp.asarray(job.data.y)
        self.restart()

    def restart(self) -> None:
        """Back to the start."""
        self.p = layers(self.job.start(), self.job.sizes)
        zeros = [jax.tree.map(jnp.zeros_like, self.p) for _ in range(2)]
        self.state = (*zeros, jnp.zeros(())) if self.job.optimizer == "adam" else zeros[0]
        jax.block_until_ready((self.p, self.state))

    def dispatch(self, order: np.ndarray | None, rates: np.ndarray) -> Any:
        """One epoch, on its way; its loss will be there."""
        job = self.job
        self.p, self.state, loss = run_epoch(
            self.p, self.state, self.X, self.y, None if order is None else jnp.asarray(order, jnp.int32),
            jnp.asarray(rates, jnp.float32), rule=job.optimizer, beta=job.beta, batch=job.batch,
            precision=job.precision,
        )  # fmt: skip
        return loss

    def settle(self, loss: Any) -> float:
        """The loss, once the parameters are there too."""
        jax.block_until_ready((self.p, self.state))
        return float(loss)

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        return np.concatenate([np.asarray(part).ravel() for layer in self.p for part in layer])


class JaxAsked:
    """See `contract.Predictor`."""

    name = "JAX"

    def __init__(self, job: Job):
        self.rows, self.p = job.data.x, layers(job.start(), job.sizes)
        self._proba = jax.jit(lambda p, x: jax.nn.softmax(logits(p, x, job.precision)))
        self._labels = jax.jit(lambda p, x: logits(p, x, job.precision).argmax(axis=1))

    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""
        return np.asarray(self._proba(self.p, self.rows))

    def labels(self) -> np.ndarray:
        """The most probable classes (N,)."""
        return np.asarray(self._labels(self.p, self.rows))


def trainers(job: Job, library: str) -> list[Jax]:
    """The one way of training."""
    return [Jax(job)]


def predictors(job: Job, library: str) -> list[JaxAsked]:
    """The one way of asking."""
    return [JaxAsked(job)]
