"""train() with each option that changes its steps: it follows the oracle with the same option."""

import numpy as np
import oracle
import pytest
from oracle_elements import mask
from tolerance import assert_close

from fastmlp.dropout import step_key
from fastmlp.network import initialise, layer_views


def follow(fit, blobs, net=oracle.PLAIN, rule="sgd", rates=None, oracles=None, hidden=(8,), real="float64", **options):
    """Twenty full batches follow the oracle, and not the oracle without the options."""
    sizes = (4, *hidden, 3)
    model = fit(hidden=hidden, batch_size="full", epochs=20, optimizer=rule, seed=5, precision=real, **{
        "learning_rate": 0.2, **options})  # fmt: skip
    start = layer_views(initialise(sizes, np.random.default_rng(5), np.dtype(real)), sizes)
    rates = np.full(20, options.get("learning_rate", 0.2)) if rates is None else rates
    curve, _, W, b = oracle.train(*blobs, *start, steps=20, rule=rule, rate=rates, net=net, **(oracles or {}))
    assert_close(model.history.train_loss, curve, real, "run")
    for got, want in zip((*model.weights, *model.biases), (*W, *b), strict=True):
        assert_close(got, want, real, "run")
    plain = oracle.train(*blobs, *start, steps=20, rule=rule, rate=0.2)[2]
    assert np.abs(plain[0] - W[0]).max() > 1e-3
    return model


@pytest.mark.parametrize("activation", ["tanh", ("gelu", "elu"), ["silu", "relu"]], ids=str)
def test_activations_are_the_oracles(fit, blobs, activation):
    names = activation if isinstance(activation, str) else tuple(activation)
    model = follow(fit, blobs, oracle.Net(names), hidden=(8, 6), real="float32", activation=activation)
    assert model.network.activation == names


@pytest.mark.parametrize(
    ("options", "rule", "oracles"),
    [
        ({"l2": 0.1}, "sgd", {"l2": 0.1}),
        ({"l2": 0.1, "clip": 0.2}, "momentum", {"l2": 0.1, "clip": 0.2}),
        ({"clip": 0.05}, "sgd", {"clip": 0.05}),
        ({"weight_decay": 0.5, "learning_rate": 0.02}, "adamw", {"decay": 0.5}),
        ({"learning_rate": 0.02}, "adamw", {"decay": 0.01}),  # its own where none is given
    ],
    ids=str,
)
def test_what_holds_weights_and_steps_small_is_the_oracles(fit, blobs, options, rule, oracles):
    follow(fit, blobs, rule=rule, oracles=oracles, **options)


def test_label_smoothing_is_the_oracles(fit, blobs):
    net = oracle.Net(numbers=(0.2, 0.0, 0.0))
    model = follow(fit, blobs, net, label_smoothing=0.2)
    assert_close(model.evaluate(*blobs)[0], oracle.loss(*blobs, model.weights, model.biases, net), np.float64)


def test_dropout_is_the_oracles(fit, blobs):
    def masks(t):
        return (mask(0.3, step_key(5, t), 90, 8),)

    model = follow(fit, blobs, oracles={"masks": masks}, dropout=0.3)
    assert_close(model.evaluate(*blobs)[0], oracle.loss(*blobs, model.weights, model.biases), np.float64)


P = np.arange(20) / 20  # the share of all steps that are done
SCHEDULES = {
    "linear": ({"schedule": "linear"}, 0.4 * (1 - P)),
    "cosine": ({"schedule": "cosine"}, 0.2 * (1 + np.cos(np.pi * P))),
    "warm": ({"warmup": 4}, 0.4 * np.minimum(1, np.arange(1, 21) / 4)),
    "warm, linear": ({"schedule": "linear", "warmup": 5}, 0.4 * (1 - P) * np.minimum(1, np.arange(1, 21) / 5)),
}


@pytest.mark.parametrize(("options", "rates"), SCHEDULES.values(), ids=SCHEDULES)
def test_rates_follow_the_schedule(fit, blobs, options, rates):
    model = follow(fit, blobs, rates=rates, learning_rate=0.4, **options)
    assert model.report.learning_rate == 0.4


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one_cycle"])
def test_every_step_of_an_epoch_has_its_rate(fit, monkeypatch, schedule):
    seen = []
    learner = type(fit(epochs=1).learner)
    real = learner.epoch
    monkeypatch.setattr(learner, "epoch", lambda self, rows, batch, rates, l2: (
        seen.append(rates.copy()), real(self, rows, batch, rates, l2))[1])  # fmt: skip
    fit(epochs=10, batch_size=9, learning_rate=0.3, schedule=schedule)
    rates = np.concatenate(seen)  # (100,)
    assert rates.shape == (100,)
    if schedule == "constant":
        assert (rates == 0.3).all()
    elif schedule == "one_cycle":
        assert rates.argmax() == 30
        assert rates.max() == pytest.approx(0.3)
        assert rates[0] < 0.02
        assert rates[-1] < 0.001
    else:
        assert rates[0] == 0.3
        assert (np.diff(rates) < 0).all()
        assert 0 < rates[-1] < 0.004


def test_a_single_step_of_a_model_keeps_to_its_options(fit, blobs):
    model = fit(l2=0.5, clip=0.1, optimizer="sgd", learning_rate=0.1, precision="float64", epochs=1)
    W, b = ([v.copy() for v in vs] for vs in (model.weights, model.biases))
    dW, db = oracle.clipped(*oracle.gradients(*blobs, W, b), 0.1)
    model.backprop(*blobs)
    for got, w, g in zip(model.weights, W, dW, strict=True):
        assert_close(got, w - 0.1 * (g + 0.5 * w), np.float64)
    for got, v, g in zip(model.biases, b, db, strict=True):
        assert_close(got, v - 0.1 * g, np.float64)
