"""The independent answer: the maths of a dense network in float64 and plain NumPy. Imports nothing of fastmlp.

Written from the formulas, one after the other, allocating freely. N rows, I inputs, H units, O classes.
A net is two lists: W[l] (fan_in, fan_out) and b[l] (fan_out,).
"""

import math

import numpy as np


def forward(x, W, b):
    """[a0, a1, ..., z]: the input, each hidden layer's relu(a W + b), and the logits of the last layer."""
    a = [np.asarray(x, np.float64)]  # (N, I)
    for l in range(len(W)):
        z = a[-1] @ np.asarray(W[l], np.float64) + np.asarray(b[l], np.float64)  # (N, H)
        a.append(z if l == len(W) - 1 else np.where(z > 0, z, 0.0))
    return a


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


def loss(x, y, W, b):
    """The mean cross entropy."""
    return losses(forward(x, W, b)[-1], y).mean()


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


def gradients(x, y, W, b, a=None):
    """dLoss/dW and dLoss/db of the mean cross entropy, as lists; `a` is what `forward` gave, if it ran before."""
    a = forward(x, W, b) if a is None else a
    onehot = np.zeros_like(a[-1])
    onehot[np.arange(len(y)), y] = 1.0
    dz = (softmax_fast(a[-1]) - onehot) / len(y)  # (N, O)
    dW, db = [None] * len(W), [None] * len(W)
    for l in reversed(range(len(W))):
        dW[l] = a[l].T @ dz  # (H, N)(N, O)
        db[l] = dz.sum(axis=0)
        if l:
            dz = (dz @ np.asarray(W[l], np.float64).T) * (a[l] > 0)  # (N, H)
    return dW, db


def differences(x, y, W, b, step=1e-6):
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
                up = loss(x, y, W, b)
                array[i] = kept - step
                down = loss(x, y, W, b)
                array[i] = kept
                slope[i] = (up - down) / (2 * step)
            slopes.append(slope)
        out.append(slopes)
    return out


def step(rule, w, g, state, t, rate, beta, decay=0.0):
    """One update. Returns the new w and the new state, a list of arrays; `state` is [] before the first step.

    `decay` is the weight decay of adamw.
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
        return w * (1 - rate * decay) - corrected * m / (np.sqrt(q) + 1e-8), [m, q]
    if rule == "heavy_ball":
        v = beta * (state[0] if state else 0.0) - rate * g
        return w + v, [v]
    if rule == "heavy_ball_nesterov":
        v = beta * (state[0] if state else 0.0) - rate * g
        return w + beta * v - rate * g, [v]
    raise ValueError(rule)


def train(x, y, W, b, *, steps, rule="momentum", rate=0.5, beta=0.9):
    """Full-batch training: the loss and the accuracy before each step, and the weights and biases after the last."""
    W = [np.array(w, np.float64) for w in W]
    b = [np.array(v, np.float64) for v in b]
    states = [[] for _ in range(2 * len(W))]
    curve, hits = [], []
    for t in range(1, steps + 1):
        a = forward(x, W, b)
        curve.append(losses(a[-1], y).mean())
        hits.append(np.mean(a[-1].argmax(axis=1) == y))
        dW, db = gradients(x, y, W, b, a)
        for l in range(len(W)):
            W[l], states[2 * l] = step(rule, W[l], dW[l], states[2 * l], t, rate, beta)
            b[l], states[2 * l + 1] = step(rule, b[l], db[l], states[2 * l + 1], t, rate, beta)
    return curve, hits, W, b
