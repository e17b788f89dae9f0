"""The independent answer: the maths of a dense network in float64 and plain NumPy. Imports nothing of fastmlp.

Written from the formulas, one after the other, allocating freely. N rows, I inputs, H units, O classes.
A net is two lists: W[l] (fan_in, fan_out) and b[l] (fan_out,).
"""

import math
from typing import Any, NamedTuple

import numpy as np
from oracle_elements import ACTIVATIONS, loss_of_rows


class Net(NamedTuple):
    """What is computed, apart from weights and data."""

    activation: Any = "relu"  # of the hidden layers; one name, or one each
    loss: str = "cross_entropy"
    numbers: tuple = ()  # the loss's own
    masks: tuple = ()  # (N, H) a hidden layer: 0 for what is left out, else 1 / (1 - share)

    def name(self, l):
        """The activation of hidden layer l."""
        return self.activation if isinstance(self.activation, str) else self.activation[l]


PLAIN = Net()


def forward(x, W, b, net=PLAIN):
    """[x, h0, h1, ..., z]: the input, what stays of each hidden layer's f(h W + b), and the last layer's z."""
    h = [np.asarray(x, np.float64)]  # (N, I)
    for l in range(len(W)):
        z = h[-1] @ np.asarray(W[l], np.float64) + np.asarray(b[l], np.float64)  # (N, H)
        if l < len(W) - 1:
            z = ACTIVATIONS[net.name(l)][0](z) * (net.masks[l] if net.masks else 1.0)
        h.append(z)
    return h


def softmax(z):
    """exp(z) / sum exp(z), row by row. z (N, O)."""
    return np.array([[math.exp(v - max(row)) for v in row] for row in z]) / [
        [sum(math.exp(v - max(row)) for v in row)] for row in z
    ]


def softmax_fast(z):
    """The same in whole arrays, for thousands of rows."""
    e = np.exp(z - z.max(axis=1)[:, None])
    return e / e.sum(axis=1)[:, None]


def losses(z, y):
    """-log softmax(z)[y] of each row, from log-sum-exp. z (N, O), y (N,) -> (N,)."""
    z = np.asarray(z, np.float64)
    top = z.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[np.arange(len(y)), y]


def loss(x, y, W, b, net=PLAIN, weight=1.0):
    """The mean loss; a row counts `weight` (N,) times."""
    return (loss_of_rows(net.loss, forward(x, W, b, net)[-1], y, net.numbers)[0] * weight).mean()


def accuracy(x, y, W, b):
    """The share of rows whose first largest logit is at y."""
    hits = 0
    for row, label in zip(forward(x, W, b)[-1], y, strict=True):
        best = 0
        for o in range(len(row)):
            if row[o] > row[best]:
                best = o
        hits += best == label
    return hits / len(y)


def gradients(x, y, W, b, h=None, net=PLAIN, weight=None):
    """dLoss/dW and dLoss/db of the mean loss, as lists; `h` is what `forward` gave, if it ran before."""
    h = forward(x, W, b, net) if h is None else h
    dz = loss_of_rows(net.loss, h[-1], y, net.numbers)[1] / len(x)  # (N, O)
    if weight is not None:
        dz = dz * np.asarray(weight, np.float64)[:, None]
    dW, db = [None] * len(W), [None] * len(W)
    for l in reversed(range(len(W))):
        dW[l] = h[l].T @ dz  # (H, N)(N, O)
        db[l] = dz.sum(axis=0)
        if l:
            z = h[l - 1] @ np.asarray(W[l - 1], np.float64) + np.asarray(b[l - 1], np.float64)  # (N, H)
            dz = (dz @ np.asarray(W[l], np.float64).T) * ACTIVATIONS[net.name(l - 1)][1](z)  # (N, H)
            dz = dz * (net.masks[l - 1] if net.masks else 1.0)
    return dW, db


def differences(x, y, W, b, step=1e-6, net=PLAIN, weight=1.0):
    """dW and db by central differences of the loss: no derivative is written down here."""
    W = [np.array(w, np.float64) for w in W]
    b = [np.array(v, np.float64) for v in b]
    out = []
    for group in (W, b):
        slopes = []
        for array in group:
            slope = np.zeros_like(array)
            for i in np.ndindex(array.shape):
                kept = array[i]
                array[i] = kept + step
                up = loss(x, y, W, b, net, weight)
                array[i] = kept - step
                down = loss(x, y, W, b, net, weight)
                array[i] = kept
                slope[i] = (up - down) / (2 * step)
            slopes.append(slope)
        out.append(slopes)
    return out


def clipped(dW, db, longest):
    """The same direction, at most `longest` in all."""
    length = math.sqrt(sum((g**2).sum() for g in (*dW, *db)))
    factor = min(1.0, longest / length)
    return [g * factor for g in dW], [g * factor for g in db]


def step(rule, w, g, state, t, rate, beta, decay=0.0):
    """One update. Returns the new w and the new state, a list of arrays; `state` is [] before the first step.

    `decay` is the weight decay of adamw, which no other rule has.
    """
    if rule == "sgd":
        return w - rate * g, []
    if rule == "momentum":
        v = beta * (state[0] if state else 0.0) + (1 - beta) * g
        return w - rate * v, [v]
    if rule == "nesterov":
        v = beta * (state[0] if state else 0.0) + (1 - beta) * g
        return w - rate * (beta * v + (1 - beta) * g), [v]
    if rule in ("adam", "adamw"):
        m, q = state or [0.0, 0.0]
        m = beta * m + (1 - beta) * g
        q = 0.999 * q + 0.001 * g**2
        corrected = rate * math.sqrt(1 - 0.999**t) / (1 - beta**t)
        kept = 1 - rate * decay if rule == "adamw" else 1.0
        return kept * w - corrected * m / (np.sqrt(q) + 1e-8), [m, q]
    if rule == "heavy_ball":
        v = beta * (state[0] if state else 0.0) - rate * g
        return w + v, [v]
    if rule == "heavy_ball_nesterov":
        v = beta * (state[0] if state else 0.0) - rate * g
        return w + beta * v - rate * g, [v]
    raise ValueError(rule)


def train(
    x, y, W, b, *, steps, rule="momentum", rate=0.5, beta=0.9, net=PLAIN, weight=None, l2=0.0, decay=0.0, clip=0.0,
    masks=None,
):  # fmt: skip
    """Full-batch training: the loss and the accuracy before each step, and the weights and biases after the last.

    rate is one number, or one a step; l2 the factor of the weights, not the biases, in the gradient; decay that of
    adamw; clip the longest gradient let through, before l2; masks(t) gives step t's masks of dropout.
    """
    W = [np.array(w, np.float64) for w in W]
    b = [np.array(v, np.float64) for v in b]
    states = [[] for _ in range(2 * len(W))]
    curve, hits = [], []
    rates = np.broadcast_to(rate, steps)
    for t in range(1, steps + 1):
        net = net if masks is None else net._replace(masks=masks(t))
        h = forward(x, W, b, net)
        rows = loss_of_rows(net.loss, h[-1], y, net.numbers)[0]
        curve.append((rows * (1.0 if weight is None else weight)).mean())
        hits.append(np.mean(h[-1].argmax(axis=1) == y) if np.ndim(y) == 1 else 0.0)
        dW, db = gradients(x, y, W, b, h, net, weight)
        if clip:
            dW, db = clipped(dW, db, clip)
        for l in range(len(W)):
            g = dW[l] + l2 * W[l]
            W[l], states[2 * l] = step(rule, W[l], g, states[2 * l], t, rates[t - 1], beta, decay)
            b[l], states[2 * l + 1] = step(rule, b[l], db[l], states[2 * l + 1], t, rates[t - 1], beta)
    return curve, hits, W, b
