"""The tensor-core kernels, run on the CPU, against the oracle: every net they take, every edge of a tile."""

from __future__ import annotations

import numpy as np
import pytest
from fastmlp.kernels.cuda import tensor
from tensor_cases import PROCESSORS, SHARED, SMALL, answer, errors, problem, step
from tolerance import assert_close, tolerance

from fastmlp import optimizers
from fastmlp.optimizers import OPTIMIZERS, Settings, step_scalars

pytestmark = pytest.mark.usefixtures("cupy")

REFERENCE = (784, 160, 10)
CASES = [  # net, rows, compute capability: tiles differ by all three
    (REFERENCE, 317, 90),  # a full tile of 160 rows and a part of one, chunks of 112 inputs
    (REFERENCE, 100, 80),  # the last chunk is short
    (REFERENCE, 70, 86),
    (REFERENCE, 1, 90),
    ((20, 100, 3), 77, 90),
    ((33, 256, 16), 70, 80),
    ((100, 17, 16), 300, 80),
    ((64, 40, 9), 130, 86),
    ((5, 1, 2), 40, 120),
    ((48, 7, 2), 33, 100),
    ((150, 130, 8), 65, 89),
]


def close(case, got, expected):
    """Each part of the step within rounding to float16 of the oracle's; right answers are counted exactly."""
    off = errors(case, got, expected)
    assert off.pop("right answers") == 0
    assert max(off.values()) < tolerance("half", np.float32)[0], off


@pytest.mark.parametrize(("sizes", "n", "capability"), CASES, ids=str)
def test_step(sizes, n, capability):
    case = problem(sizes, n)
    close(case, step(case, SMALL[capability]), answer(case))


@pytest.mark.parametrize("n", [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 400])
def test_every_edge_of_a_tile(n):
    case = problem((20, 12, 3), n, seed=n)
    close(case, step(case, SMALL[90]), answer(case))


@pytest.mark.parametrize("weight", [False, True])
@pytest.mark.parametrize("index", [False, True])
def test_rows_picked_and_weighed(index, weight):
    case = problem((20, 12, 3), 77)
    close(case, step(case, SMALL[90], index, weight), answer(case, index, weight))


def test_same_bits_whatever_the_order_of_threads():
    case = problem((100, 17, 16), 300)
    first, second = (step(case, SMALL[80]) for _ in range(2))  # each launch has another order
    assert all(one.tobytes() == other.tobytes() for one, other in zip(first, second, strict=True))


def test_more_multiprocessors_than_tiles():
    case = problem((20, 12, 3), 77)
    close(case, step(case, tensor.Card(90, 132, SHARED[90])), answer(case))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_update_is_the_optimizers_rule(optimizer, cupy):
    """The gradient is the kernels' own, so that nothing but the rule is compared; penalties spare the biases."""
    case, n, put, (rule, states, _) = problem((20, 12, 3), 77), 77, cupy.asarray, OPTIMIZERS[optimizer]
    P, settings = len(case.parameters), Settings(weight_decay=0.1)
    work, w, s, totals = tensor.allocate(case.sizes, n, SMALL[90]), put(case.parameters), cupy.zeros((states, P), np.float32), cupy.zeros(2)
    expected, state = case.parameters.astype(float), np.zeros((states, P))
    weights = np.concatenate([np.full(part.size, name in ("dW1", "dW2")) for name, part in case.split(expected).items()])
    X, y, index, g = put(case.X), put(case.y), put(case.index), cupy.empty(P, np.float32)
    tensor.halve(work, w)
    for t in (1, 2, 3):
        tensor.forward(work, X, y, index, None, n, w)
        tensor.weight_gradient(work, X, index, n)
        tensor.gradient(work, g, n, cupy.zeros(2))
        h = step_scalars(rule, 0.05, settings, t, np.dtype(np.float32), 0.01)
        tensor.update(work, optimizer, w, s, put(np.array(h, np.float32)), n, totals)
        for which, held in ((weights, h), (~weights, h._replace(l2=0, shrink=0))):
            rule(expected, g.get().astype(float), state, which, Step(*map(float, held)))
        assert_close(w.get(), expected, np.float32)
        assert_close(s.get(), state, np.float32)
        half = np.zeros(work.W1.shape, np.float16)  # (BYTES, width(H))
        half[:20, :12] = w.get()[: 20 * 12].reshape(20, 12)
        np.testing.assert_array_equal(work.W1.get(), half)
    assert totals.get()[1] == 


def test_training_follows_the_oracle(cupy):
    """Batches through an epoch's order, the last one short; errors of float16 do not gather."""
    case, batch, epochs, card = problem((30, 24, 4), 100), 32, 3, SMALL[86]
    put, (I, _, _), P = cupy.asarray, case.sizes, len(case.parameters)
    work, w, v, totals = tensor.allocate(case.sizes, batch, card), put(case.parameters), cupy.zeros((1, P), np.float32), cupy.zeros(2)
    X, y, W, b, state = put(case.X), put(case.y), [], [], []
    expected, state, loss = case.parameters.astype(float), [], 0.0
    tensor.halve(work, w)
