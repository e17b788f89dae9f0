"""The tensor-core kernels, run on the CPU, against the oracle: every net they take, every edge of a tile."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from fastmlp.kernels.cuda import tensor, tensor_tiles
from tensor_cases import CASES, PROCESSORS, REFERENCE, SHARED, SMALL, answer, close, problem, step
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
    """A net on the card and its steps."""

    def __init__(self, case, batch, states, cupy) -> None:
        put, P = cupy.asarray, len(case.parameters)
        self.case, self.work = case, tensor.allocate(case.sizes, batch, SMALL[90])
        self.X, self.y, self.w, self.put = put(case.X), put(case.y), put(case.parameters), put
        self.s, self.totals = cupy.zeros((states, P), np.float32), cupy.zeros(2)
        self.g, self.unused = cupy.empty(P, np.float32), cupy.zeros(2)
        tensor.halve(self.work, self.w)

    def step(self, rows, rule, h) -> np.ndarray:
        """One step on some rows. Returns the gradient."""
        index, n = self.put(rows), len(rows)
        tensor.forward(self.work, self.X, self.y, index, None, n, self.w)
        tensor.weight_gradient(self.work, self.X, index, n)
        tensor.gradient(self.work, self.g, n, self.unused)
        tensor.update(self.work, rule, self.w, self.s, self.put(np.array(h, np.float32)), n, self.totals)
        return self.g.get()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_is_the_optimizers_rule(optimizer, cupy):
    """The gradient is the kernels' own, so that nothing but the rule is compared; penalties spare the biases."""
    case, (rule, states, _), settings = problem((20, 12, 3), 77), OPTIMIZERS[optimizer], Settings(weight_decay=0.1)
    trainer = Trainer(case, 77, states, cupy)
    expected, state = case.parameters.astype(float), np.zeros((states, len(case.parameters)))
    weights = np.concatenate([np.full(part.size, name[1] == "W") for name, part in case.split(expected).items()])
    for t in (1, 2, 3):
        h = step_scalars(rule, 0.05, settings, t, np.dtype(np.float32), 0.01)
        g = trainer.step(case.index, optimizer, h).astype(float)
        for which, held in ((weights, h), (~weights, h._replace(l2=0, shrink=0))):
            rule(expected, g, state, which, Step(*map(float, held)))
        assert_close(trainer.w.get(), expected, np.float32)
        assert_close(trainer.s.get(), state, np.float32)
        half = np.zeros(trainer.work.W1.shape, np.float16)  # (BYTES, width(H))
        half[:20, :12] = trainer.w.get()[: 20 * 12].reshape(20, 12)
        np.testing.assert_array_equal(trainer.work.W1.get(), half)
    np.testing.assert_array_equal(trainer.totals.get(), trainer.unused.get())


def test_training_follows_the_oracle(cupy):
    """Two epochs of batches, the last of each a short one: the errors of float16 do not gather."""
    case = problem((20, 12, 3), 77)
    trainer, dtype = Trainer(case, 32, 1, cupy), np.dtype(np.float32)
    W, b, states, t, loss = [w.astype(float) for w in case.W], [v.astype(float) for v in case.b], [[]] * 4, 0, 0.0
    for _ in range(2):
        for start in range(0, 77, 32):
            rows, t = case.index[start : start + 32], t + 1
            x, y = case.X[rows, :20] / 255, case.y[rows]
            loss += oracle.loss(x, y, W, b) * len(rows)
            dW, db = oracle.gradients(x, y, W, b)
            moved = [oracle.step("momentum", w, g, s, t, 0.5, 0.9)
                     for w, g, s in zip((*W, *b), (*dW, *db), states, strict=True)]  # fmt: skip
            states, W, b = [s for _, s in moved], [w for w, _ in moved[:2]], [w for w, _ in moved[2:]]
            h = step_scalars(OPTIMIZERS["momentum"].rule, 0.5, Settings(), t, dtype)
            trainer.step(rows, "momentum", h)
    relative = tolerance("half", np.float32)[0]
    assert trainer.totals.get()[0] == pytest.approx(loss, rel=relative)
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
    for n in (1, 128, 1000, 42_000, 1_000_000):
        forward, gradient = tensor_tiles.forward_tiles(sizes, n, card), tensor_tiles.gradient_tiles(sizes, card)
        blocks, slices, splits, share = tensor_tiles.grid(sizes, n, card)
        assert max(forward.shared, gradient.shared) <= card.shared
        assert tensor_tiles.width(sizes[1]) % (8 * forward.unit_warps) == 0
        assert 1 <= blocks <= card.processors
        assert slices * 16 * gradient.input_warps * gradient.input_tiles >= sizes[0]
        assert splits * slices <= max(card.processors, slices)
        assert (splits - 1) * share < n <= splits * share  # every share has rows


def test_lanes_that_read_together_read_different_banks():
    """Of 32 banks, 4 bytes wide: the emulator does not count what it costs when two lanes want the same."""
    g, t = np.divmod(np.arange(32), 4)
    eight = np.arange(8)[:, None]
    for count in range(16, 1024, 16):
        pitch = tensor_tiles.spread(count)
        assert pitch >= count
        for address in (g * pitch + 4 * t, 2 * t * pitch + 4 * g):  # fragments of X in tensor_forward, tensor_gradient
            assert len(set(address // 4 % 32)) == 32
        assert len(set(((eight * pitch + 4 * np.arange(4)) // 4 % 32).flat)) == 32  # a matrix's rows, 16 bytes each


def test_reference_net_fills_an_h200():
    """The tiles that docs/gpu.md counts on: 263 tiles of 160 rows, two a multiprocessor, and 5 * 26 blocks."""
    card = tensor_tiles.Card(90, 132, SHARED[90])
    assert tensor_tiles.forward_tiles(REFERENCE, 42_000, card)[:4] == (4, 2, 5, 112)
    assert tensor_tiles.grid(REFERENCE, 42_000, card)[:3] == (132, 5, 26)


def test_nets_and_cards_that_are_refused(cupy):
    card = tensor_tiles.Card(90, 132, SHARED[90])
    assert tensor_tiles.unsupported((784, 256, 16), card) is None
    assert "7.5 is below 8.0" in tensor_tiles.unsupported(REFERENCE, card._replace(capability=75))
    assert "2 hidden layers" in tensor_tiles.unsupported((784, 20, 20, 10), card)
    assert "257 hidden units" in tensor_tiles.unsupported((784, 257, 10), card)
    assert "17 classes" in tensor_tiles.unsupported((784, 160, 17), card)
    with pytest.raises(ValueError, match="17 classes"):
        tensor.allocate((784, 160, 17), 1, card)
    assert tensor.card() == (90, 3, SHARED[90])


def test_batches_that_are_refused(cupy):
    case = problem((20, 12, 3), 77)
    trainer = Trainer(case, 32, 1, cupy)
    work, X = trainer.work, trainer.X
    with pytest.raises(ValueError, match="1 to 32 rows, for which there are buffers; got 33"):
        tensor.weight_gradient(work, X, None, 33)
    with pytest.raises(ValueError, match=r"uint8 array of shape \(90, 32\), got C-ordered uint8 \(90, 20\)"):
        tensor.weight_gradient(work, cupy.asarray(case.X[:, :20].copy()), None, 32)
    with pytest.raises(ValueError, match=r"int32 array of shape \(32,\)"):
        tensor.weight_gradient(work, X, cupy.asarray(case.index), 32)
    with pytest.raises(ValueError, match="at most 10 rows without an index"):
        tensor.weight_gradient(work, X[:10], None, 32)
