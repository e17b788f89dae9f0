"""How train() ends: by a callback, an interrupt, an error or a diverged loss, with the threads as they were."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from fastmlp import Model, TrainingDiverged


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
    assert caught[0].filename == fit.__code__.co_filename  # where train() was called
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
