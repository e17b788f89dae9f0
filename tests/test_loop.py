"""The loop that fastmlp.train and the estimators share, and epochs that run in one call."""

import numpy as np
import pytest

from fastmlp import MLPClassifier
from fastmlp.backends.base import Rows, Totals
from fastmlp.loop import DONE, ENDED, INTERRUPTED, Work, run_epochs
from fastmlp.network import Network, initialise
from fastmlp.optimizers import Settings, find


class Fake:
    """A learner that writes down what it is asked for."""

    def __init__(self):
        self.calls = []

    def prepare(self, rows, batch_size):
        self.calls.append("prepare")

    def epoch(self, rows, batch_size, rates, l2=None):
        self.calls.append(1)
        return Totals(1.0, 0.0, 0.0)

    def epochs(self, rows, batch_size, rates, l2=None):
        self.calls.append(len(rates))
        return [Totals(1.0, 0.0, 0.0)] * len(rates)


def work():
    return Work(Rows(np.zeros((3, 1)), np.zeros(3, np.int32), np.arange(3)), np.ones(1))


def test_every_epoch_is_told_of_once_in_order():
    learner, seen = Fake(), []
    lengths = iter([1, 3, 2, 5])
    ended = run_epochs(
        learner,
        3,
        8,
        work,
        lambda: "measured",
        [lambda e: seen.append((e.number, e.validation))],
        lambda: next(lengths),
    )
    assert ended == DONE
    assert learner.calls == ["prepare", 1, 3, 2, 2]
    assert seen == [(n, "measured") for n in range(1, 9)]


@pytest.mark.parametrize("answer", [True, np.True_])
def test_a_listener_ends_it(answer):
    seen = []
    ended = run_epochs(Fake(), 3, 9, work, lambda: None, [lambda e: e.number == 4 and answer, seen.append])
    assert ended == ENDED
    assert len(seen) == 4


@pytest.mark.parametrize("answer", [1, "yes", None])
def test_only_true_ends_it(answer):
    assert run_epochs(Fake(), 3, 2, work, lambda: None, [lambda e: answer]) == DONE


def test_ctrl_c_ends_it():
    def stop(epoch):
        raise KeyboardInterrupt

    assert run_epochs(Fake(), 3, 2, work, lambda: None, [stop]) == INTERRUPTED


def in_phases_where_wide(monkeypatch):
    """Two threads at any size; small batches of 60 inputs take phases, those of 5 tiles."""
    from fastmlp.backends import numba_learner, numba_plan, numba_ways

    for module, name, value in ((numba_ways, "FEW", 500), (numba_ways, "SMALL", 0), (numba_learner, "ALONE", 0),
                                (numba_plan, "START", 0)):  # fmt: skip
        monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
@pytest.mark.parametrize(
    ("batch", "weighted", "clip"), [(7, False, 0.0), (7, True, 0.0), (50, True, 0.01), (2000, False, 0.0)]
)
@pytest.mark.parametrize("inputs", [5, 60])
def test_several_epochs_in_one_call_are_the_same_epochs(
    backend, dtype, rule, batch, weighted, clip, inputs, monkeypatch
):
    if backend.name == "numba":
        in_phases_where_wide(monkeypatch)
    rng = np.random.default_rng(0)
    n, epochs, network = 45, 4, Network((inputs, 40, 3), dropout=0.2)
    steps = -(-n // batch)
    X, y = rng.standard_normal((n, inputs)).astype(dtype), rng.integers(0, 3, n).astype(np.int32)
    orders = [rng.permutation(n) for _ in range(epochs)]
    weights = [rng.uniform(0, 2, n).astype(dtype) if weighted else None for _ in range(epochs)]
    rates, l2 = rng.uniform(0.01, 0.1, (epochs, steps)), rng.uniform(0, 0.1, (epochs, steps))
    start, ends = initialise(network.sizes, rng, dtype), []
    for together in (False, True):
        plan = backend.plan(network, start.copy(), 2)
        learner = plan.learner(find(rule), Settings(clip=clip, seed=3, weight_decay=0.1))
        if together:
            weight = np.concatenate(weights) if weighted else None
            totals = learner.epochs(Rows(X, y, np.concatenate(orders), weight), batch, rates, l2)
        else:
            totals = [learner.epoch(Rows(X, y, orders[k], weights[k]), batch, rates[k], l2[k]) for k in range(epochs)]
        ends.append((plan.parameters.copy(), totals, learner.steps))
    np.testing.assert_array_equal(ends[0][0], ends[1][0])
    assert ends[0][1:] == ends[1][1:]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("options", [{}, dict(solver="sgd", learning_rate="adaptive"), dict(max_iter=7)], ids=str)
def test_a_fit_that_nobody_watches_is_the_fit_that_is_watched(backend, blobs, options):
    fits, ends = [], []
    for callbacks in (None, lambda model: None):
        random = np.random.RandomState(5)
        settings = {"tol": 0.01, "n_iter_no_change": 4, "backend": backend.name, "threads": 1, **options}
        fits.append(MLPClassifier((6,), random_state=random, callbacks=callbacks, **settings).fit(*blobs))
        ends.append(random.randint(2**31))
    one, other = fits
    assert one.loss_curve_ == other.loss_curve_
    assert (one.n_iter_, one.t_, ends[0]) == (other.n_iter_, other.t_, ends[1])
    assert one._optimizer.schedule == other._optimizer.schedule
    np.testing.assert_array_equal(one.coefs_[0], other.coefs_[0])
