"""The tensor-core kernels, run on the CPU, against the oracle: every net they take, every edge of a tile."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from fastmlp.kernels.cuda import tensor, tensor_tiles
from tensor_cases import (
    CASES,
    GRADIENT,
    PROCESSORS,
    REFERENCE,
    SHARED,
    SMALL,
    answer,
    close,
    problem,
    step,
    visits,
)
from tolerance import assert_close, tolerance

from fastmlp.optimizers import OPTIMIZERS, Settings, Step, step_scalars

pytestmark = pytest.mark.usefixtures("cupy")


@pytest.mark.parametrize(("sizes", "n", "capability"), CASES, ids=str)
def test_step(sizes, n, capability):
    case = problem(sizes, n)
    assert close(case, step(case, SMALL[capability]), answer(case))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 400])
def test_every_edge_of_a_tile(n):
    case = problem((20, 12, 3), n, seed=n)
    assert close(case, step(case, SMALL[90]), answer(case))


@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("index", [False, True])
def test_rows_picked_and_weighed(index, weight):
    case = problem((20, 12, 3), 77)
    assert close(case, step(case, SMALL[90], index, weight), answer(case, index, weight))


def test_same_bits_whatever_the_order_of_threads():
    case = problem((100, 17, 16), 300)
    first, second = (step(case, SMALL[80]) for _ in range(2))  # each launch has another order
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))


def test_more_multiprocessors_than_tiles():
    case = problem((20, 12, 3), 77)
    assert close(case, step(case, tensor_tiles.Card(90, 132, SHARED[90])), answer(case))


class Trainer:
    """A net on the card and its steps, over batches of the case's rows."""

    def __init__(self, case, batches, states, table, cupy, order=None) -> None:
        put, P = cupy.asarray, len(case.parameters)
        self.case, self.work = case, tensor.allocate(case.sizes, batches, SMALL[90])
        self.X, self.y, self.w = put(case.X), put(case.y), put(case.parameters)
        self.s, self.g = cupy.zeros((states, P), np.float32), cupy.zeros((1, P), np.float32)
        self.epoch = visits(case.index if order is None else order, None, table, cupy)
        self.aside = visits(case.index, None, [GRADIENT] * len(table), cupy)
        tensor.halve(self.work, self.w)
        self.follows = False

    def gradient(self, n) -> np.ndarray:
        """Of the next n rows; nothing moves."""
        tensor.halve(self.work, self.w)
        aside = self.aside._replace(step=self.epoch.step, visit=self.epoch.visit)
        tensor.forward(self.work, self.X, self.y, aside, n, self.w)
        tensor.step(self.work, self.X, aside, n, "momentum", self.w, self.g)
        tensor.halve(self.work, self.w)
        self.follows = False
        return self.g.get()[0]

    def step(self, n, rule) -> None:
        """One step on the next n rows."""
        tensor.forward(self.work, self.X, self.y, self.epoch, n, self.w, follows=self.follows)
        self.follows = True
        tensor.step(self.work, self.X, self.epoch, n, rule, self.w, self.s)
        self.epoch = self.epoch._replace(step=self.epoch.step + 1, visit=self.epoch.visit + n)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_is_the_optimizers_rule(optimizer, cupy):
    """The gradient is the kernels' own, so that nothing but the rule is compared; penalties spare the biases."""
    case, (rule, states, _), settings = problem((20, 12, 3), 66), OPTIMIZERS[optimizer], Settings(weight_decay=0.1)
    table = [step_scalars(rule, 0.05, settings, t, np.dtype(np.float32), 0.01) for t in (1, 2, 3)]
    trainer = Trainer(case, (22,), states, table, cupy)
    expected, state = case.parameters.astype(float), np.zeros((states, len(case.parameters)))
    weights = np.concatenate([np.full(part.size, name[1] == "W") for name, part in case.split(expected).items()])
    for h in table:
        g = trainer.gradient(22).astype(float)
        trainer.step(22, optimizer)
        for which, held in ((weights, h), (~weights, h._replace(l2=0, shrink=0))):
            rule(expected, g, state, which, Step(*map(float, held)))
        assert_close(trainer.w.get(), expected, np.float32)
        assert_close(trainer.s.get(), state, np.float32)
        W1, W2 = trainer.work.W1.get(), trainer.work.W2.get()  # (BYTES, width(H)), (width(H), 16)
        parts = case.split(trainer.w.get().astype(np.float16))
        for halves, part, shape in ((W1, "dW1", (20, 12)), (W2, "dW2", (12, 3))):
            padded = np.zeros_like(halves)
            padded[: shape[0], : shape[1]] = parts[part].reshape(shape)
            np.testing.assert_array_equal(halves, padded)
    np.testing.assert_array_equal(trainer.epoch.totals.get(), trainer.aside.totals.get())


def test_training_follows_the_oracle(cupy):
    """Two epochs of batches, the last of each a short one: the errors of float16 do not gather."""
    case, dtype = problem((20, 12, 3), 77), np.dtype(np.float32)
    table = [step_scalars(OPTIMIZERS["momentum"].rule, 0.5, Settings(), t, dtype) for t in range(1, 7)]
    trainer = Trainer(case, (32, 13), 1, table, cupy, np.concatenate([case.index, case.index]))
    W, b, states, t, loss = [w.astype(float) for w in case.W], [v.astype(float) for v in case.b], [[]] * 4, 0, []
    for _ in range(2):
        for start in range(0, 77, 32):
            rows, t = case.index[start : start + 32], t + 1
            x, y = case.X[rows, :20] / 255, case.y[rows]
            loss.append(oracle.loss(x, y, W, b) * len(rows))
            dW, db = oracle.gradients(x, y, W, b)
            moved = [oracle.step("momentum", w, g, s, t, 0.5, 0.9)
                     for w, g, s in zip((*W, *b), (*dW, *db), states, strict=True)]  # fmt: skip
            states, W, b = [s for _, s in moved], [w for w, _ in moved[:2]], [w for w, _ in moved[2:]]
            trainer.step(len(rows), "momentum")
    relative = tolerance("half", np.float32)[0]
    np.testing.assert_allclose(trainer.epoch.totals.get()[:, 0], loss, rtol=relative)
    expected = np.concatenate([W[0].ravel(), b[0], W[1].ravel(), b[1]])
    assert np.linalg.norm(trainer.w.get() - expected) < relative * np.linalg.norm(expected)


@pytest.mark.parametrize("where", ["weight", "hidden unit"])
def test_too_large_for_float16_is_no_finite_loss(where):
    """From 65520 on a number rounds to infinity: the loss says so, however the rest of the net takes it."""
    case = problem((20, 12, 3), 77)
    case.W[0][3, 5] = 1e6 if where == "weight" else 6e4
    case.b[0][5] = 0 if where == "weight" else 6e4
    case.W[1][:] = -abs(case.W[1])  # all logits would be minus infinity
    with np.errstate(invalid="ignore"):
        totals = step(case, SMALL[90]).totals
    assert not np.isfinite(totals[0])


def test_nan_among_the_parameters_is_a_nan_loss():
    case = problem((20, 12, 3), 77)
    case.b[0][5] = np.nan
    assert np.isnan(step(case, SMALL[90]).totals[0])


@pytest.mark.parametrize("sizes", [(784, 160, 10), (784, 256, 16), (5, 1, 2), (3072, 256, 10), (100_000, 128, 2)])
@pytest.mark.parametrize("capability", PROCESSORS)
def test_tiles_fit_the_card(capability, sizes):
    card = tensor_tiles.Card(capability, PROCESSORS[capability], SHARED[capability])
    forward, step = tensor_tiles.forward_tiles(sizes, card), tensor_tiles.step_tiles(sizes, card)
    assert max(forward.shared, step.shared) <= card.shared
    for n in (1, 128, 1000, tensor_tiles.MOST_ROWS):
        tiles, shares = tensor_tiles.forward_grid(sizes, n, card)
        assert tiles * tensor_tiles.ROWS_OF_TILE >= n
        assert 1 <= shares <= -(-sizes[0] // forward.chunk)  # every share has inputs
        slices, shares = tensor_tiles.step_grid(sizes, n, card)
        assert slices * tensor_tiles.INPUTS_OF_SLICE >= sizes[0]
        assert 1 <= shares <= -(-n // step.chunk)  # every share has rows


def test_lanes_that_read_together_read_different_banks():
    """Of 32 banks, 4 bytes wide: the emulator does not count what it costs when two lanes want the same."""
    g, t = np.divmod(np.arange(32), 4)
    eight = np.arange(8)[:, None]
    for count in range(16, 1024, 16):
        pitch = tensor_tiles.spread(count)
        assert pitch >= count
        assert len(set((g * pitch + 4 * t) // 4 % 32)) == 32  # fragments of X in tensor_forward
        assert len(set(((eight * pitch + 4 * np.arange(4)) // 4 % 32).flat)) == 32  # a matrix's rows, 16 bytes each


def test_small_batches_are_shared_on_an_h200():
    """What docs/gpu.md counts on: 8 tiles of 16 rows, 7 shares of the inputs; 49 slices, which take all rows."""
    card = tensor_tiles.Card(90, 132, SHARED[90])
    assert tensor_tiles.forward_tiles(REFERENCE, card).chunk == 112
    assert tensor_tiles.forward_grid(REFERENCE, 128, card) == (8, 7)
    assert tensor_tiles.step_grid(REFERENCE, 128, card) == (49, 1)
    assert tensor_tiles.forward_grid(REFERENCE, 1024, card) == (64, 2)
    assert tensor_tiles.step_grid(REFERENCE, 1024, card) == (49, 2)


def test_nets_and_cards_that_are_refused(cupy):
    card = tensor_tiles.Card(90, 132, SHARED[90])
    assert tensor_tiles.unsupported((784, 256, 16), card) is None
    assert "7.5 is below 8.0" in tensor_tiles.unsupported(REFERENCE, card._replace(capability=75))
    assert "2 hidden layers" in tensor_tiles.unsupported((784, 20, 20, 10), card)
    assert "257 hidden units" in tensor_tiles.unsupported((784, 257, 10), card)
    assert "17 classes" in tensor_tiles.unsupported((784, 160, 17), card)
    with pytest.raises(ValueError, match="17 classes"):
        tensor.allocate((784, 160, 17), (1,), card)
    with pytest.raises(ValueError, match="1 to 2048 rows, got 1 to 2049"):
        tensor.allocate(REFERENCE, (1, 2049), card)
    assert tensor.card() == (90, 3, SHARED[90])


def test_batches_that_are_refused(cupy):
    case = problem((20, 12, 3), 77)
    trainer = Trainer(case, (32, 13), 1, [GRADIENT], cupy)
    work, X, epoch = trainer.work, trainer.X, trainer.epoch
    with pytest.raises(ValueError, match="32 or 13 rows, which have room; got 33"):
        tensor.expect_batch(work, X, epoch, 33)
    with pytest.raises(ValueError, match=r"uint8 array of shape \(90, 32\), got C-ordered uint8 \(90, 20\)"):
        tensor.expect_batch(work, cupy.asarray(case.X[:, :20].copy()), epoch, 32)
    with pytest.raises(ValueError, match="at most 10 rows, which the epoch visits; got 32"):
        tensor.expect_batch(work, X[:10], epoch._replace(order=None), 32)
    with pytest.raises(ValueError, match=r"int32 array of shape \(2,\)"):
        tensor.expect_batch(work, X, epoch._replace(turn=epoch.table), 32)
