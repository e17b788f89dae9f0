"""A trained model: weights under both names, the notes' formulas, predictions, steps by hand."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import oracle
import pytest
from tolerance import assert_close

from fastmlp import train
from fastmlp.network import layer_views
from fastmlp.optimizers import OPTIMIZERS

OPTIONS = {"hidden": (7,), "epochs": 2, "batch_size": 16, "progress": False}


@pytest.fixture
def model(backend, blobs, dtype):
    return train(*blobs, **OPTIONS, backend=backend.name, precision=dtype.name)


def test_weights_and_biases_are_views_of_one_array(model):
    assert [w.shape for w in model.weights] == [(4, 7), (7, 3)]
    assert [v.shape for v in model.biases] == [(7,), (3,)]
    for view in (*model.weights, *model.biases, model.w_ih, model.b_ih, model.w_ho, model.b_ho):
        assert np.shares_memory(view, model.parameters)


def test_the_notes_names_are_the_same_weights_in_columns(model):
    assert (model.w_ih.shape, model.b_ih.shape) == ((7, 4), (7, 1))
    assert (model.w_ho.shape, model.b_ho.shape) == ((3, 7), (3, 1))
    np.testing.assert_array_equal(model.w_ih, model.weights[0].T)
    np.testing.assert_array_equal(model.b_ho[:, 0], model.biases[-1])


def test_the_notes_formulas_give_the_models_forward(model, blobs, dtype):
    X = blobs[0].astype(dtype)
    x0 = X.T  # (4, N): a sample a column
    z1 = model.w_ih @ x0 + model.b_ih  # (7, N)
    a1 = np.maximum(z1, 0)
    z2 = model.w_ho @ a1 + model.b_ho  # (3, N)
    yhat = np.exp(z2) / np.exp(z2).sum(axis=0)  # columns sum to 1
    assert_close(model.forward(X), yhat.T, dtype)


def test_changing_the_notes_weights_changes_the_predictions(model, blobs):
    model.w_ho[:] = 0
    model.b_ho[:] = [[0], [5], [0]]
    assert set(model.predict(blobs[0])) == {1}


def test_with_two_hidden_layers_the_notes_names_are_the_outer_ones(backend, blobs):
    model = train(*blobs, **{**OPTIONS, "hidden": (6, 5)}, backend=backend.name)
    assert (model.w_ih.shape, model.w_ho.shape) == ((6, 4), (3, 5))


def test_probabilities_are_the_oracles_and_sum_to_one(model, blobs, dtype):
    X = blobs[0].astype(dtype)
    p = model.predict_proba(X)
    assert p.dtype == dtype
    assert p.shape == (90, 3)
    assert_close(p.sum(axis=1), 1.0, dtype)
    assert_close(p, oracle.softmax(oracle.forward(X, model.weights, model.biases)[-1]), dtype)
    np.testing.assert_array_equal(model.forward(X), p)


def test_predictions_are_the_most_probable_classes(model, blobs):
    X, y = blobs
    predicted = model.predict(X)
    np.testing.assert_array_equal(predicted, model.classes[model.predict_proba(X).argmax(axis=1)])
    assert model.score(X, y) == np.mean(predicted == y)
    assert model.predict(X[:1]).tolist() == predicted[:1].tolist()


def test_evaluate_is_the_oracles(model, blobs, dtype):
    X, y = blobs[0].astype(dtype), blobs[1]
    loss, accuracy = model.evaluate(X, y)
    assert_close(loss, oracle.loss(X, y, model.weights, model.biases), dtype)
    assert accuracy == pytest.approx(oracle.accuracy(X, y, model.weights, model.biases))
    assert (type(loss), type(accuracy)) == (float, float)


@pytest.mark.parametrize(
    "classes",
    [
        np.array([3, 5, 900]),
        np.array(["cat", "dog", "a very long name"]),
        np.array([0.0, 1.0, 7.0]),
        np.uint8([1, 2, 3]),
    ],
    ids=["ints", "text", "floats", "uint8"],
)
def test_predictions_have_the_type_of_the_labels(backend, blobs, classes):
    X, y = blobs[0], classes[blobs[1]]
    model = train(X, y, **{**OPTIONS, "epochs": 40}, learning_rate=0.05, backend=backend.name)
    predicted = model.predict(X)
    assert predicted.dtype == classes.dtype
    assert np.mean(predicted == y) == model.score(X, y) > 0.9


@pytest.mark.parametrize("kind", ["labels", "one-hot"])
@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_backprop_takes_the_oracles_steps(backend, blobs, dtype, rule, kind):
    X, y = blobs[0].astype(dtype), blobs[1]
    Y = np.eye(3)[y] if kind == "one-hot" else y
    model = train(X, y, backend=backend.name, precision=dtype.name, optimizer=rule, learning_rate=0.05, beta=0.7,
                  **{**OPTIONS, "epochs": 1, "batch_size": "full"})  # fmt: skip
    # The oracle starts where train() did, so that its momentum after one epoch is the model's.
    start = layer_views(restart(model, dtype), model.sizes)
    curve, _, W, b = oracle.train(X, y, *start, steps=6, rule=rule, rate=0.05, beta=0.7, decay=0.01)
    losses = model.history.train_loss + [model.backprop(X, Y) for _ in range(5)]  # each before its own step
    assert_close(losses, curve, dtype, "run")
    assert type(losses[-1]) is float
    for got, want in zip((*model.weights, *model.biases), (*W, *b), strict=True):
        assert_close(got, want, dtype, "run")


def restart(model, dtype):
    from fastmlp.network import initialise

    return initialise(model.sizes, np.random.default_rng(model.report.seed), dtype)


def test_backprop_on_a_part_of_the_rows_is_a_step_on_their_mean(backend, blobs, dtype):
    X, y = blobs[0].astype(dtype), blobs[1]
    model = train(X, y, **OPTIONS, backend=backend.name, precision=dtype.name, optimizer="sgd", learning_rate=0.1)
    W, b = ([v.astype(np.float64) for v in vs] for vs in (model.weights, model.biases))
    dW, db = oracle.gradients(X[:5], y[:5], W, b)
    assert_close(model.backprop(X[:5], y[:5]), oracle.loss(X[:5], y[:5], W, b), dtype)
    for got, w, g in zip((*model.weights, *model.biases), (*W, *b), (*dW, *db), strict=True):
        assert_close(got, w - 0.1 * g, dtype)


def test_backprop_on_bytes(backend, pixels):
    X, y = pixels
    model = train(X, y, **OPTIONS, backend=backend.name)
    losses = [model.backprop(X, y) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_predicting_and_scoring_move_nothing(model, blobs):
    before = model.parameters.copy()
    model.predict(blobs[0])
    model.predict_proba(blobs[0])
    model.score(*blobs)
    np.testing.assert_array_equal(model.parameters, before)


def test_rows_are_predicted_alone_as_among_others(model, blobs, dtype):
    together = model.predict_proba(blobs[0])
    alone = np.concatenate([model.predict_proba(row[None]) for row in blobs[0]])
    assert_close(alone, together, dtype)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_learns_on_its_own(model, blobs, copied):
    twin = copied(model)
    before = model.predict_proba(blobs[0])
    np.testing.assert_array_equal(twin.predict_proba(blobs[0]), before)
    assert np.shares_memory(twin.weights[0], twin.parameters)
    assert not np.shares_memory(twin.parameters, model.parameters)
    losses = [twin.backprop(*blobs) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert not np.array_equal(twin.predict_proba(blobs[0]), before)
    np.testing.assert_array_equal(model.predict_proba(blobs[0]), before)


def test_threads_may_predict_with_one_model_at_once(backend, blobs):
    model = train(*blobs, **{**OPTIONS, "hidden": (300, 300)}, backend=backend.name)
    data = [np.random.default_rng(seed).standard_normal((2000, 4)).astype(np.float32) for seed in (0, 1)]
    want = [model.predict_proba(X) for X in data]

    def right(k):
        return all(np.array_equal(model.predict_proba(data[k]), want[k]) for _ in range(15))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(right, (0, 1))) == [True, True]


def test_two_models_may_train_at_once(backend, blobs):
    def fit(seed):
        return train(*blobs, **OPTIONS, seed=seed, backend=backend.name).parameters

    alone = [fit(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        for together, expected in zip(pool.map(fit, (0, 1)), alone, strict=True):
            np.testing.assert_array_equal(together, expected)


def test_repr_names_sizes_backend_and_epochs(model, backend):
    assert repr(model) == f"<fastmlp.Model 4-7-3 on {backend.name}, 2 epochs>"
