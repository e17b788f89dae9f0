"""train_many(): each network as if it were alone, one X for all, and how the lot ends."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from running import running, settled
from threadpoolctl import threadpool_info
from traced import peak

from fastmlp import BackendUnavailable, DataError, OptionError, train, train_many

QUIET = {"hidden": (8,), "epochs": 3, "batch_size": 16}


@pytest.fixture
def fit_all(backend, blobs):
    """train_many() on the blobs, with few units and epochs unless a config says otherwise."""

    def call(configs, X=blobs[0], y=blobs[1], **options):
        full = [{**QUIET, "backend": backend.name, **config} for config in configs]
        return train_many(X, y, full, **{"progress": False, "threads": 2, **options})

    return call


def assert_alone(model, config, backend, blobs):
    """The model is that of its own training, to the bit."""
    options = {**QUIET, "backend": backend.name, **config}
    alone = train(*blobs, threads=1, progress=False, **options)
    assert model.parameters.tobytes() == alone.parameters.tobytes()
    assert model.history.train_loss == alone.history.train_loss
    assert model.history.validation_loss == alone.history.validation_loss
    assert model.report.to_dict() == alone.report.to_dict()


def test_each_network_is_what_it_would_be_alone_in_the_order_asked_for(fit_all, backend, blobs):
    configs = [
        *({"seed": seed, "epochs": 6 - seed} for seed in range(4)),
        {"hidden": (8, 6)}, {"batch_size": "full"}, {"optimizer": "adam", "learning_rate": 0.01},
        {"validation": (blobs[0][:20], blobs[1][:20])}, {"validation": 0.2, "seed": 1}, {"validation": 0.2, "seed": 2},
        {"scale": "standard"}, {"precision": "float64"},
    ]  # fmt: skip
    models = fit_all(configs)
    assert len(models) == len(configs)
    for model, config in zip(models, configs, strict=True):
        assert_alone(model, config, backend, blobs)
    np.testing.assert_array_equal(models[0].predict(blobs[0]), models[0].classes[models[0].forward(blobs[0]).argmax(1)])


@pytest.mark.parametrize("threads", [1, 5, None])
def test_any_number_of_threads(fit_all, backend, blobs, threads):
    configs = [{"seed": seed} for seed in range(3)]
    for model, config in zip(fit_all(configs, threads=threads), configs, strict=True):
        assert_alone(model, config, backend, blobs)


def test_the_rows_are_held_once(fit_all):
    X, y = np.random.default_rng(0).random((10_000, 500)), np.arange(10_000) % 2  # 40 MB; as float32 20 MB
    configs = [{"seed": seed, "epochs": 1, "batch_size": 128} for seed in range(6)]
    fit_all(configs[:1], X, y)  # compiled now, which takes memory of its own
    assert 20e6 < peak(lambda: fit_all(configs, X, y)) < 30e6


def test_no_more_threads_than_asked_for(fit_all, backend):
    seen, before = [], running()

    def look(model):
        blas = [pool["num_threads"] for pool in threadpool_info() if "numpy" in pool["filepath"]]  # SciPy has its own
        seen.append((running() - before, *blas))

    fit_all([{"seed": seed, "callbacks": [look]} for seed in range(6)])
    assert len(seen) == 18
    assert max(count for count, *_ in seen) <= 2
    if backend.name == "numpy":  # numba's products take none of BLAS's threads
        assert {threads for _, *pools in seen for threads in pools} <= {1}
    assert settled(before)


# What is refused.


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"hiden": 3}, OptionError, r"configs\[1\]: expected options among validation, hidden, .*; got 'hiden'"),
        ({"threads": 2}, OptionError, r"configs\[1\]: threads is for all networks; pass it to train_many itself"),
        ({"progress": True}, OptionError, r"configs\[1\]: progress is for all networks"),
        ({"epochs": 0}, OptionError, r"configs\[1\]: epochs: expected a whole number from 1; got 0"),
        ({"optimizer": "adm"}, OptionError, r"configs\[1\]: optimizer: expected one of"),
        ({"backend": "torch"}, OptionError, r"configs\[1\]: backend: expected one of"),
        ({"backend": "cupy", "strict": True}, BackendUnavailable, r"configs\[1\]: backend cupy is not usable"),
        ({"validation": 1.5}, OptionError, r"configs\[1\]: validation: expected a fraction"),
        ({"validation": ([[1.0]], [0])}, DataError, r"configs\[1\]: validation X: expected 4 columns"),
    ],
    ids=str,
)
def test_the_config_at_fault_is_named_before_any_training(fit_all, config, error, message):
    if config.get("backend") == "cupy":
        from fastmlp import backends

        if not isinstance(backends.load("cupy"), str):
            pytest.skip("there is a GPU here")
    called = []
    with pytest.raises(error, match=message):
        fit_all([{"callbacks": [called.append]}, config])
    assert called == []


@pytest.mark.parametrize("configs", [[], {"hidden": 3}, "abc", None, [3], [None]], ids=str)
def test_configs_are_a_list_of_dicts(blobs, configs):
    with pytest.raises(OptionError, match=r"configs(\[0\])?: expected a (list of dicts|dict of options)"):
        train_many(*blobs, configs)


def test_threads_that_are_no_number_are_refused(blobs):
    with pytest.raises(OptionError, match="threads: expected a whole number from 1, or None; got 0"):
        train_many(*blobs, [{}], threads=0)


def test_networks_that_would_each_need_their_own_rows_are_refused(fit_all):
    split = {"scale": "standard", "validation": 0.2}
    assert len(fit_all([{**split, "hidden": units} for units in (3, 8)])) == 2
    with pytest.raises(OptionError, match=r"configs\[1\]: scale='standard' learns from .* configs\[0\]"):
        fit_all([{**split, "seed": seed} for seed in range(2)])


# How it ends.


def test_a_network_that_diverges_is_named_and_the_others_go_on(fit_all, backend, blobs):
    configs = [{}, {"learning_rate": 1e30}, {"seed": 1}]
    with pytest.warns(RuntimeWarning, match=r"configs\[1\]: the loss is (nan|inf) after epoch \d: lower learning_rate"):
        models = fit_all(configs)
    assert "lower learning_rate" in models[1].report.stopped
    for place in (0, 2):
        assert_alone(models[place], configs[place], backend, blobs)


def test_an_error_in_a_callback_ends_all_and_names_its_config(fit_all):
    def fail(model):
        raise ZeroDivisionError("mine")

    before = running()
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        fit_all([{"epochs": 10**5}, {"callbacks": [fail]}, {"epochs": 10**5}])
    assert caught.value.__notes__ == ["in configs[1]"]
    assert settled(before)


def control_c_soon():
    """Ctrl-C comes in half a second; the list gets the time at which it did."""
    sent = []

    def send():
        time.sleep(0.5)
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=send, daemon=True).start()
    return sent


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(SIGINT) ends the process there")
def test_control_c_ends_all_and_keeps_what_is_done(fit_all, backend, blobs):
    configs = [{}, {"epochs": 10**5}, {"epochs": 10**5, "seed": 1}, {"seed": 2}]
    fit_all(configs[:1])  # compiled now
    sent = control_c_soon()
    with pytest.warns(UserWarning, match="interrupted when 1 of 4 networks were done: the models so far are kept"):
        models = fit_all(configs)
    assert time.perf_counter() - sent[0] < 1
    assert_alone(models[0], configs[0], backend, blobs)
    assert [model.report.stopped for model in models[1:]] == ["interrupted"] * 3
    assert all(len(model.history) > 10 for model in models[1:3])
    start = train(*blobs, threads=1, progress=False, **{**QUIET, "seed": 2, "epochs": 1}).parameters
    assert models[3].parameters.shape == start.shape
    assert len(models[3].history) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="os.kill(SIGINT) ends the process there")
def test_control_c_ends_an_epoch_in_its_midst(backend):
    X, y = np.random.default_rng(0).random((60_000, 100), np.float32), np.arange(60_000) % 3
    config = {"backend": backend.name, "hidden": (4096,), "batch_size": 8, "epochs": 3}  # an epoch takes seconds
    train_many(X[:100], y[:100], [{**config, "epochs": 1}], progress=False)  # compiled now
    sent = control_c_soon()
    with pytest.warns(UserWarning, match="interrupted when 0 of 2 networks were done"):
        models = train_many(X, y, [config, config], progress=False, threads=2)
    assert time.perf_counter() - sent[0] < 1
    assert [len(model.history) for model in models] == [0, 0]


# Progress.


def test_a_pipe_gets_a_line_a_network_where_asked_for(fit_all, capsys):
    fit_all([{}, {"seed": 1}], progress=True, threads=1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:3] for line in lines] == [
        ["network 1/2", "configs[0]", "epoch 3/3"],
        ["network 2/2", "configs[1]", "epoch 3/3"],
    ]


def test_a_pipe_is_quiet_otherwise(fit_all, capsys):
    fit_all([{}], progress=None)
    assert capsys.readouterr().err == ""
