"""train(): what it learns, whom it calls, how it ends, and the options it refuses."""

import math
import tracemalloc

import numpy as np
import oracle
import pytest
from oracle_elements import mask
from threadpoolctl import threadpool_info
from tolerance import assert_close

from fastmlp import DataError, Model, OptionError, TrainingDiverged, train
from fastmlp.dropout import step_key
from fastmlp.network import initialise, layer_views
from fastmlp.optimizers import OPTIMIZERS
from fastmlp.options import Options
from fastmlp.preparation import Source, split

QUIET = {"progress": False, "hidden": (8,), "epochs": 3, "batch_size": 16}


@pytest.fixture
def fit(backend, blobs):
    """train() on the blobs, with few units and epochs unless told otherwise."""

    def call(X=blobs[0], y=blobs[1], **options):
        return train(X, y, **{**QUIET, "backend": backend.name, **options})

    return call


# What it learns.


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6), (8, 6, 5)], ids=str)
@pytest.mark.parametrize("batch", [16, "full"])
def test_every_optimizer_learns_the_blobs(fit, blobs, rule, hidden, batch):
    rate = 0.05 if rule.startswith("adam") else 0.03 if rule.startswith("heavy") else 0.3
    model = fit(
        optimizer=rule, hidden=hidden, batch_size=batch, epochs=300 if batch == "full" else 40, learning_rate=rate
    )
    assert model.sizes == (4, *hidden, 3)
    assert model.history.train_loss[-1] < 0.5 * model.history.train_loss[0]
    assert model.score(*blobs) > 0.9


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_full_batch_follows_the_oracle(fit, blobs, dtype, rule):
    model = fit(
        optimizer=rule, batch_size="full", epochs=20, learning_rate=0.05, beta=0.8, seed=5, precision=dtype.name
    )
    start = initialise((4, 8, 3), np.random.default_rng(5), dtype)
    X = blobs[0].astype(dtype)
    curve, hits, W, b = oracle.train(
        X, blobs[1], *layer_views(start, (4, 8, 3)), steps=20, rule=rule, rate=0.05, beta=0.8, decay=0.01
    )
    assert_close(model.history.train_loss, curve, dtype, "run")
    assert_close(model.history.train_accuracy, hits, dtype, "run")
    for got, want in zip((*model.weights, *model.biases), (*W, *b), strict=True):
        assert_close(got, want, dtype, "run")


def test_a_batch_larger_than_the_data_is_one_step_an_epoch(fit):
    model = fit(batch_size=1000)
    assert model.report.batch_size == 90
    assert model.learner.steps == 3


@pytest.mark.parametrize(("batch", "steps"), [(1, 90), (16, 6), (90, 1), ("full", 1)])
def test_steps_an_epoch(fit, batch, steps):
    assert fit(batch_size=batch, epochs=1).learner.steps == steps


def test_two_rows_are_enough(fit):
    model = fit([[0.0], [1.0]], [0, 1], epochs=1)
    assert len(model.history) == 1


def test_hidden_may_be_one_number(fit):
    assert fit(hidden=7).sizes == fit(hidden=[7]).sizes == fit(hidden=(np.int64(7),)).sizes == (4, 7, 3)


def test_whole_numbers_of_numpy_are_taken_everywhere(fit):
    numbers = {name: np.int64(2) for name in ("hidden", "epochs", "batch_size", "seed")}
    assert fit(**numbers).sizes == (4, 2, 3)


def test_a_fraction_of_numpy_is_a_fraction(fit):
    assert fit(validation=np.float32(0.25)).report.validation_rows == fit(validation=0.25).report.validation_rows


def test_numpy_numbers_do_not_spoil_saving(fit, tmp_path):
    numbers = {name: np.int64(2) for name in ("epochs", "batch_size", "seed")}
    model = fit(hidden=(np.int64(2),), learning_rate=np.float32(0.1), beta=np.float32(0.5), **numbers)
    model.save(tmp_path / "model")


def test_the_data_given_stay_as_they_were(fit, blobs):
    X, y = (array.copy() for array in blobs)
    fit(X, y, scale="standard", validation=0.2)
    np.testing.assert_array_equal(X, blobs[0])
    np.testing.assert_array_equal(y, blobs[1])


LABELS = {
    "ints": lambda y: y * 10 - 5,
    "text": lambda y: np.array(["cat", "dog", "eel"])[y],
    "list of text": lambda y: [["cat", "dog", "eel"][k] for k in y],
    "objects": lambda y: np.array(["cat", "dog", "eel"], dtype=object)[y],
    "floats": lambda y: y.astype(float),
    "one-hot": lambda y: np.eye(3)[y],
    "column": lambda y: y[:, None],
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_the_kind_of_labels_changes_no_bit(fit, blobs, labels):
    plain, other = fit(), fit(y=labels(blobs[1]))
    np.testing.assert_array_equal(plain.parameters, other.parameters)


def test_bool_labels(fit, blobs):
    model = fit(y=blobs[1] == 1, epochs=20, learning_rate=0.05)
    predicted = model.predict(blobs[0])
    assert predicted.dtype == bool
    assert np.mean(predicted == (blobs[1] == 1)) > 0.9


# What else changes the training.


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


# Seeds and bits.


@pytest.mark.parametrize("batch", [16, "full"])
def test_the_same_seed_gives_the_same_bits(fit, batch):
    one, two = (fit(seed=3, batch_size=batch, validation=0.2) for _ in range(2))
    np.testing.assert_array_equal(one.parameters, two.parameters)
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        assert getattr(one.history, name) == getattr(two.history, name)


def test_another_seed_gives_other_weights(fit):
    assert not np.array_equal(fit(seed=3).parameters, fit(seed=4).parameters)


def test_training_does_not_touch_numpys_global_generator(fit):
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    fit(validation=0.2)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_batches_are_shuffled_anew_each_epoch_and_full_ones_are_not(fit, blobs, monkeypatch):
    orders = []
    learner = type(fit(epochs=1).learner)
    real = learner.epoch
    monkeypatch.setattr(
        learner, "epoch", lambda self, rows, *rest: (orders.append(rows.index), real(self, rows, *rest))[1]
    )
    fit(epochs=2)
    assert all(sorted(order) == list(range(90)) for order in orders)
    assert orders[0].tolist() != orders[1].tolist()
    orders.clear()
    fit(batch_size="full")
    assert orders == [None] * 3
    orders.clear()
    fit(validation=0.2, batch_size="full")
    assert all((np.diff(order) > 0).all() for order in orders)  # in their order, as in the notes
    orders.clear()
    fit(validation=0.2)
    rest, _ = Source(*blobs).split(Options(validation=0.2))
    assert all(sorted(order) == rest.tolist() for order in orders)  # never a row that is held out


def test_backends_train_to_the_same_weights(blobs, dtype):
    ends = [train(*blobs, **QUIET, backend=name, precision=dtype.name).parameters for name in ("numpy", "numba")]
    assert_close(ends[0], ends[1], dtype, "run")


# Types and memory.


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64"])
def test_the_precision_asked_for_rules_whatever_the_data(fit, blobs, dtype, kind):
    model = fit((blobs[0] * 10).astype(kind), precision=dtype.name, optimizer="adam", validation=0.2)
    made = model.learner
    assert {a.dtype for a in (model.parameters, *model.weights, made.g, made.state)} == {dtype}
    assert model.predict_proba(blobs[0]).dtype == dtype
    assert model.report.precision == dtype.name


def test_bytes_mean_pixels_divided_by_255(fit, pixels):
    X, y = pixels
    scaled = (X.astype(np.float64) / 255).astype(np.float32)
    bytes_, floats = fit(X, y), fit(scaled, y)
    assert bytes_.inputs.pixels
    assert not floats.inputs.pixels
    assert_close(bytes_.parameters, floats.parameters, np.float32, "run")
    assert_close(bytes_.predict_proba(X), bytes_.predict_proba(scaled), np.float32)


def test_bytes_are_never_copied_into_floats(backend):
    X, y = np.zeros((40_000, 500), np.uint8), np.arange(40_000) % 2  # 20 MB; as float32 80 MB
    tracemalloc.start()
    try:
        train(X, y, validation=0.25, **{**QUIET, "hidden": (64,), "epochs": 1, "batch_size": 512}, backend=backend.name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


# Validation.


def test_a_validation_pair_is_measured_after_each_epoch(fit, blobs):
    X, y = blobs[0][:20] + 0.1, blobs[1][:20]
    seen = []
    model = fit(validation=(X, y), callbacks=[lambda model: seen.append(model.evaluate(X, y))])
    assert list(zip(model.history.validation_loss, model.history.validation_accuracy, strict=True)) == seen
    assert model.report.validation_rows == 20
    assert model.report.rows == 90


def test_validation_changes_nothing_of_the_training(fit, blobs):
    np.testing.assert_array_equal(fit().parameters, fit(validation=blobs).parameters)


def test_a_fraction_holds_rows_out_in_every_class_share(fit, blobs):
    model = fit(validation=0.2)
    assert (model.report.rows, model.report.validation_rows) == (72, 18)
    rest, held_out = Source(*blobs).split(Options(validation=0.2))
    assert sorted([*rest, *held_out]) == list(range(90))  # no row in both parts, none lost
    assert np.bincount(blobs[1][held_out]).tolist() == [6, 6, 6]


def test_the_fraction_is_what_is_trained_and_measured(fit, blobs):
    X, y = blobs
    rest, held_out = Source(X, y).split(Options(validation=0.2))
    model = fit(validation=0.2, batch_size="full")
    by_hand = fit(X[rest], y[rest], validation=(X[held_out], y[held_out]), batch_size="full")
    np.testing.assert_array_equal(model.parameters, by_hand.parameters)
    assert model.history.validation_loss == by_hand.history.validation_loss


def test_the_split_hangs_on_the_seed():
    codes = np.repeat([0, 1], 50)
    assert split(codes, 0.3, 1)[1].tolist() == split(codes, 0.3, 1)[1].tolist()
    assert split(codes, 0.3, 1)[1].tolist() != split(codes, 0.3, 2)[1].tolist()


def test_shares_are_kept_where_classes_are_rare():
    codes = np.repeat([0, 1], [90, 10])
    train_rows, held_out = split(codes, 0.2, 0)
    assert np.bincount(codes[held_out]).tolist() == [18, 2]
    assert np.bincount(codes[train_rows]).tolist() == [72, 8]


def test_scaling_is_learned_from_the_training_rows_only(fit, blobs):
    X, y = blobs[0].copy(), blobs[1]
    _, held_out = Source(X, y).split(Options(validation=0.2))
    X[held_out] += 1000
    model = fit(X, y, validation=0.2, scale="standard")
    rest = np.setdiff1d(np.arange(90), held_out)
    np.testing.assert_allclose(model.inputs.mean, X[rest].mean(axis=0))
    np.testing.assert_allclose(model.inputs.deviation, X[rest].std(axis=0))


def test_a_standardising_model_takes_raw_rows(fit, blobs):
    X, y = blobs[0] * [1, 1e3, 1e-3, 1] + [0, 1e4, 0, 5], blobs[1]
    model = fit(X, y, scale="standard", epochs=40, learning_rate=0.05, validation=(X, y))
    by_hand = fit((X - X.mean(axis=0)) / X.std(axis=0), y, epochs=40, learning_rate=0.05)
    assert_close(model.predict_proba(X), by_hand.predict_proba((X - X.mean(axis=0)) / X.std(axis=0)), np.float32, "run")
    assert model.history.validation_accuracy[-1] == model.score(X, y) > 0.9


def test_too_few_rows_to_split_are_refused():
    X, y = np.zeros((4, 2)), [0, 0, 0, 1]
    with pytest.raises(DataError, match=r"validation=0.5: the rows cannot be split so that every class has its share"):
        train(X, y, validation=0.5, **QUIET)


# History and report.


@pytest.mark.parametrize("validated", [False, True])
def test_history_has_an_entry_an_epoch(fit, blobs, validated):
    history = fit(epochs=4, validation=blobs if validated else None).history
    assert len(history) == len(history.train_loss) == len(history.train_accuracy) == len(history.seconds) == 4
    assert len(history.validation_loss) == len(history.validation_accuracy) == (4 if validated else 0)
    lists = (history.train_loss, history.train_accuracy, history.validation_loss, history.validation_accuracy)
    assert {type(value) for values in lists for value in values} == {float}
    assert all(seconds > 0 for seconds in history.seconds)


def test_the_report_says_what_ran(fit, backend):
    report = fit(seed=9, optimizer="nesterov", beta=0.7, learning_rate=0.25, threads=1).report
    assert (report.backend, report.requested, report.reason) == (backend.name, backend.name, "asked for")
    assert (report.seed, report.optimizer, report.beta, report.learning_rate) == (9, "nesterov", 0.7, 0.25)
    assert (report.batch_size, report.rows, report.validation_rows, report.epochs) == (16, 90, 0, 3)
    assert report.precision == "float32"
    assert report.stopped == "all epochs done"
    assert report.threads in (1, None)
    assert report.blas
    assert report.device is None
    assert report.versions["numpy"] == np.__version__
    assert {"fastmlp", "python"} <= set(report.versions)


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_the_default_rate_is_the_optimizers_and_what_the_docstring_says(fit, rule):
    rate = fit(optimizer=rule, epochs=1).report.learning_rate
    assert rate == OPTIMIZERS[rule].learning_rate
    promised = train.__doc__.partition("None takes the optimizer's own:")[2].partition(".\n")[0]
    adams, heavy, others = promised.replace(", and", ",").split(", ")
    assert f"{rate:g} for" in (adams if rule.startswith("adam") else heavy if rule.startswith("heavy") else others)


# Threads.


def blas_threads():
    return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]}


def test_one_thread_is_kept_to_and_the_others_come_back(fit, blobs):
    before, during = blas_threads(), []
    model = fit(threads=1, callbacks=[lambda model: during.append(blas_threads())])
    assert model.report.threads == 1
    if model.backend.name == "numba":  # which has threads of its own
        assert model.plan.threads == 1
    else:
        assert all(threads <= {1} for threads in during)
    assert blas_threads() == before
    model.predict(blobs[0])
    assert blas_threads() == before


def test_threads_come_back_after_an_error(fit):
    def fail(model):
        raise ZeroDivisionError

    before = blas_threads()
    with pytest.raises(ZeroDivisionError):
        fit(threads=1, callbacks=[fail])
    assert blas_threads() == before


# Callbacks and endings.


def test_callbacks_are_called_in_order_once_an_epoch_with_the_model(fit):
    calls = []
    model = fit(
        callbacks=[
            lambda m: calls.append(("one", m, len(m.history))),
            lambda m: calls.append(("two", m, m.report.epochs)),
        ]
    )
    assert [(name, epoch) for name, _, epoch in calls] == [(name, e) for e in (1, 2, 3) for name in ("one", "two")]
    assert all(given is model for _, given, _ in calls)


@pytest.mark.parametrize("answer", [True, np.True_], ids=["True", "np.True_"])
def test_true_ends_training_after_every_callback_was_called(fit, answer):
    calls = []
    model = fit(epochs=9, callbacks=[lambda m: answer if m.report.epochs == 2 else None, lambda m: calls.append(1)])
    assert len(model.history) == len(calls) == model.report.epochs == 2
    assert model.report.stopped == "a callback ended it"


@pytest.mark.parametrize("answer", [None, False, 0, 1, "yes", 0.5])
def test_no_other_answer_ends_training(fit, answer):
    assert fit(callbacks=[lambda model: answer]).report.stopped == "all epochs done"


def test_ending_early_is_the_same_as_fewer_epochs(fit):
    early = fit(epochs=9, callbacks=[lambda model: model.report.epochs == 3])
    np.testing.assert_array_equal(early.parameters, fit(epochs=3).parameters)


def test_an_interrupt_keeps_the_model_so_far_and_warns(fit):
    def interrupt(model):
        if model.report.epochs == 2:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted in epoch 3: the model so far is kept") as caught:
        model = fit(epochs=9, callbacks=[interrupt])
    assert caught[0].filename == __file__.replace("\\", "/") or caught[0].filename == __file__
    assert isinstance(model, Model)
    assert model.report.stopped == "interrupted"
    assert len(model.history) == 2
    np.testing.assert_array_equal(model.parameters, fit(epochs=2).parameters)


def test_an_error_in_a_callback_is_the_callers(fit):
    with pytest.raises(ZeroDivisionError):
        fit(callbacks=[lambda model: 1 / 0])


@pytest.mark.parametrize("rule", ["sgd", "momentum", "nesterov"])
@pytest.mark.parametrize("hidden", [(8,), (8, 8)], ids=str)
def test_a_huge_rate_raises_and_says_what_to_do(fit, rule, hidden):
    with pytest.raises(TrainingDiverged, match=r"the loss is (nan|inf) after epoch \d+: lower learning_rate") as caught:
        fit(optimizer=rule, hidden=hidden, learning_rate=1e38, epochs=5)
    assert "scale='standard'" in str(caught.value)


def test_a_last_step_that_ruins_the_weights_is_noticed(fit):
    # The loss of the last batch was taken before its own step; the validation after it is worthless.
    with pytest.raises(TrainingDiverged):
        fit(optimizer="sgd", hidden=(8, 8), learning_rate=1e38, epochs=1, batch_size="full", validation=0.2)


# Options that cannot be.

OPTIONS = [
    ("backend", "torch", "backend: expected one of auto, cupy, numba, numpy; got 'torch'"),
    ("hidden", 10**20, "hidden: expected layers of fewer than 1,099,511,627,776 units; got"),
    ("callbacks", [3], "callbacks: expected a sequence of functions; got [3]"),
    ("callbacks", print, "callbacks: expected a sequence of functions; got"),
    (
        "optimizer",
        "lbfgs",
        "optimizer: expected one of sgd, momentum, nesterov, adam, adamw, heavy_ball, heavy_ball_nesterov; got 'lbfgs'",
    ),
    ("optimizer", None, "optimizer: expected one of"),
    ("optimizer", ["adam"], "optimizer: expected one of"),
    ("precision", "float8", "precision: expected float32 or float64 or tf32 or float16 or bfloat16; got 'float8'"),
    ("precision", "float16", "backend cannot compute in float16: it computes in float32 or float64"),
    ("precision", np.float32, "precision: expected float32 or float64 or tf32"),
    ("scale", "minmax", "scale: expected None or 'standard'; got 'minmax'"),
    ("scale", True, "scale: expected None or 'standard'; got True"),
    ("epochs", 0, "epochs: expected a whole number from 1; got 0"),
    ("epochs", 2.5, "epochs: expected a whole number from 1; got 2.5"),
    ("epochs", True, "epochs: expected a whole number from 1; got True"),
    ("epochs", "3", "epochs: expected a whole number from 1; got '3'"),
    ("batch_size", 0, "batch_size: expected a whole number from 1, or 'full'; got 0"),
    ("batch_size", -1, "batch_size: expected a whole number from 1, or 'full'; got -1"),
    ("batch_size", "half", "batch_size: expected a whole number from 1, or 'full'; got 'half'"),
    ("batch_size", True, "batch_size: expected a whole number from 1, or 'full'; got True"),
    ("batch_size", 16.0, "batch_size: expected a whole number from 1, or 'full'; got 16.0"),
    ("learning_rate", 0, "learning_rate: expected a finite number above 0; got 0"),
    ("learning_rate", -1, "learning_rate: expected a finite number above 0; got -1"),
    ("learning_rate", math.nan, "learning_rate: expected a finite number above 0; got nan"),
    ("learning_rate", math.inf, "learning_rate: expected a finite number above 0; got inf"),
    ("learning_rate", "0.1", "learning_rate: expected a finite number above 0; got '0.1'"),
    ("learning_rate", True, "learning_rate: expected a finite number above 0; got True"),
    ("beta", 1, "beta: expected a number from 0 to below 1; got 1"),
    ("beta", -0.1, "beta: expected a number from 0 to below 1; got -0.1"),
    ("beta", math.nan, "beta: expected a number from 0 to below 1; got nan"),
    ("beta", "0.9", "beta: expected a number from 0 to below 1; got '0.9'"),
    ("activation", "swish", "activation: expected one of identity, relu, logistic, tanh, leaky_relu, elu, gelu, silu"),
    ("activation", ("relu", "tanh"), "activation: expected one name, or one for each of the 1 hidden layers; got ('r"),
    ("activation", [3], "activation: expected one of identity"),
    ("activation", None, "activation: expected one name, or one for each of the 1 hidden layers; got None"),
    ("dropout", 1, "dropout: expected a number from 0 to below 1; got 1"),
    ("dropout", -0.1, "dropout: expected a number from 0 to below 1; got -0.1"),
    ("dropout", "half", "dropout: expected a number from 0 to below 1; got 'half'"),
    ("l2", -1, "l2: expected a finite number from 0; got -1"),
    ("l2", math.inf, "l2: expected a finite number from 0; got inf"),
    ("weight_decay", 0.1, "weight_decay: expected optimizer='adamw', got 'momentum'; use adamw, or l2"),
    ("weight_decay", -1, "weight_decay: expected a finite number from 0, or None; got -1"),
    ("clip", 0, "clip: expected a finite number above 0, or None; got 0"),
    ("clip", math.nan, "clip: expected a finite number above 0, or None; got nan"),
    ("schedule", "step", "schedule: expected one of constant, linear, cosine, one_cycle; got 'step'"),
    ("schedule", None, "schedule: expected one of constant, linear, cosine, one_cycle; got None"),
    ("warmup", -1, "warmup: expected a number of epochs from 0; got -1"),
    ("warmup", True, "warmup: expected a number of epochs from 0; got True"),
    ("warmup", 3, "warmup: expected fewer epochs than the 3 of the training; got 3"),
    ("label_smoothing", 1, "label_smoothing: expected a number from 0 to below 1; got 1"),
    ("label_smoothing", None, "label_smoothing: expected a number from 0 to below 1; got None"),
    ("hidden", (0,), "hidden: expected whole numbers from 1, one a hidden layer; got (0,)"),
    ("hidden", (-3,), "hidden: expected whole numbers from 1, one a hidden layer; got (-3,)"),
    ("hidden", ("a",), "hidden: expected whole numbers from 1, one a hidden layer; got ('a',)"),
    ("hidden", (8, 2.5), "hidden: expected whole numbers from 1, one a hidden layer; got (8, 2.5)"),
    ("hidden", "160", "hidden: expected whole numbers from 1"),
    ("hidden", 0, "hidden: expected whole numbers from 1"),
    ("hidden", True, "hidden: expected whole numbers from 1"),
    ("hidden", None, "hidden: expected whole numbers from 1"),
    ("hidden", 2.5, "hidden: expected whole numbers from 1"),
    ("seed", -1, "seed: expected a whole number from 0 to below 2**32; got -1"),
    ("seed", 2**32, "seed: expected a whole number from 0 to below 2**32; got 4294967296"),
    ("seed", None, "seed: expected a whole number from 0 to below 2**32; got None"),
    ("threads", 0, "threads: expected a whole number from 1, or None; got 0"),
    ("threads", "all", "threads: expected a whole number from 1, or None; got 'all'"),
    ("validation", 0, "validation: expected a fraction between 0 and 1, or a pair (X, y); got 0"),
    ("validation", 1, "validation: expected a fraction between 0 and 1, or a pair (X, y); got 1"),
    ("validation", 1.5, "validation: expected a fraction between 0 and 1, or a pair (X, y); got 1.5"),
    ("validation", True, "validation: expected a fraction between 0 and 1, or a pair (X, y); got True"),
    ("validation", math.nan, "validation: expected a fraction between 0 and 1, or a pair (X, y); got nan"),
    ("validation", "x", "validation: expected a fraction between 0 and 1, or a pair (X, y); got x"),
    ("validation", (np.zeros((3, 4)),), "validation: expected a fraction between 0 and 1, or a pair (X, y); got tuple"),
    ("validation", np.zeros((2, 4)), "validation: expected a fraction between 0 and 1, or a pair (X, y); got ndarray"),
]


@pytest.mark.parametrize(("name", "value", "message"), OPTIONS, ids=lambda value: str(value)[:20])
def test_an_impossible_option_is_refused_before_training(blobs, name, value, message):
    called = []
    with pytest.raises(OptionError) as caught:
        train(*blobs, **{**QUIET, "backend": "numpy", "callbacks": [called.append], name: value})
    assert message in str(caught.value)
    assert called == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (), "dropout": 0.5}, "dropout: expected hidden units to leave out, got none; set hidden"),
        ({"schedule": "one_cycle", "warmup": 1}, "warmup: expected 0, since schedule='one_cycle' has a warm-up"),
        ({"hidden": (), "activation": ("relu",)}, "one for each of the 0 hidden layers"),
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused(blobs, options, message):
    with pytest.raises(OptionError) as caught:
        train(*blobs, **{**QUIET, "backend": "numpy", **options})
    assert message in str(caught.value)


def test_labels_without_rows_are_refused():
    with pytest.raises(DataError, match=r"y: expected no labels without X; pass both, or neither"):
        train(None, [0, 1])


def test_options_are_refused_before_the_data_are_read():
    with pytest.raises(OptionError, match="epochs"):
        train("no data at all", None, epochs=0)


# What is shown.


def test_progress_is_shown_on_standard_error_where_asked_for(fit, capsys):
    fit(progress=True, epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "2/2" in err


def test_nothing_is_shown_in_a_pipe(fit, capsys):
    fit(progress=None)
    assert capsys.readouterr() == ("", "")
