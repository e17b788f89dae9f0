"""Epochs at one learning rate, which a test keeps beside the learner."""

import numpy as np

from fastmlp import backends
from fastmlp.network import Network, initialise
from fastmlp.optimizers import Settings, find


def learner(name, sizes, real="float32", rule="momentum", threads=1):
    """A learner of the backend, as it starts, with a rate that suits the rule."""
    start = initialise(sizes, np.random.default_rng(3), np.dtype(real))
    made = backends.load(name).plan(Network(sizes), start, threads).learner(find(rule), Settings())
    made.rate = 0.01 if rule.startswith(("adam", "heavy")) else 0.1
    return made


def epoch(learner, rows, batch_size):
    """One epoch at `learner.rate`: mean loss and accuracy."""
    rates = np.full(-(-len(rows) // batch_size), learner.rate)  # (steps,)
    return learner.epoch(rows, batch_size, rates)[:2]


def run(made, rows, batch, epochs=3):
    """The curve of (loss, accuracy), and the parameters in the end."""
    return np.array([epoch(made, rows, batch) for _ in range(epochs)]), made.plan.parameters
