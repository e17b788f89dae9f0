"""Epochs at one learning rate, which a test keeps beside the learner."""

import numpy as np


def epoch(learner, rows, batch_size):
    """One epoch at `learner.rate`: mean loss and accuracy."""
    rates = np.full(-(-len(rows) // batch_size), learner.rate)  # (steps,)
    return learner.epoch(rows, batch_size, rates)[:2]
