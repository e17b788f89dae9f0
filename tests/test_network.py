"""The maths: gradients against central differences, a net worked by hand, and mistakes that must be noticed."""

import math
from itertools import pairwise

import numpy as np
import oracle
import pytest
from tolerance import assert_close, tolerance

from fastmlp import network
from fastmlp.activations import IDENTITY, RELU
from fastmlp.dropout import NONE

NETS = [(4, 3), (4, 5, 3), (4, 5, 4, 3), (4, 3, 5, 4, 3)]  # none, 1, 2 and 3 hidden layers


def buffers(sizes, n, dtype=np.float64):
    """a, dz, dW, db filled with 7, so that what is not written shows."""
    a, dz = ([np.full((n, units), 7, dtype) for units in sizes[1:]] for _ in range(2))
    dW = [np.full(shape, 7, dtype) for shape in pairwise(sizes)]
    db = [np.full(units, 7, dtype) for units in sizes[1:]]
    return tuple(a), tuple(dz), tuple(dW), tuple(db)


def run(ops, x, y, W, b, parts=1):
    """dW, db, mean loss and accuracy, the rows given in `parts` tiles."""
    n = len(x)
    totals = np.zeros(2)
    sizes = (x.shape[1], *(v.size for v in b))
    _, _, dW, db = buffers(sizes, 1, x.dtype)
    for tile, rows in enumerate(np.array_split(np.arange(n), parts)):
        a, dz, _, _ = buffers(sizes, len(rows), x.dtype)
        network.loss_and_gradients(
            ops, network.Network(sizes), (0.0,) * 3, x[rows], y[rows].astype(np.int32), None, 1 / n, tuple(W), tuple(b),
            network.Units(a, a, a, dz), dW, db, totals, tile > 0, NONE,
        )  # fmt: skip
    return dW, db, totals[0] / n, totals[1] / n


def problem(sizes, n=7, shift=0.0, seed=3):
    """x, y, W, b of a net; `shift` is added to every logit, which changes neither the loss nor a gradient."""
    rng = np.random.default_rng(seed)
    W = [rng.standard_normal(shape) for shape in pairwise(sizes)]
    b = [rng.standard_normal(units) for units in sizes[1:]]
    b[-1] += shift
    return rng.standard_normal((n, sizes[0])), rng.integers(0, sizes[-1], n), W, b


def gradient_error(ops, sizes):
    """The largest relative distance of gradients and loss from central differences; NaN counts as infinite."""
    worst = 0.0
    for parts, shift in ((1, 0.0), (3, 0.0), (1, 1000.0), (1, -1000.0)):
        x, y, W, b = problem(sizes, shift=shift)
        slopes = oracle.differences(x, y, W, [*b[:-1], b[-1] - shift])
        with np.errstate(all="ignore"):
            dW, db, loss, _ = run(ops, x, y, W, b, parts)
        for got, want in zip([*dW, *db], [*slopes[0], *slopes[1]], strict=True):
            worst = np.fmax(worst, np.nan_to_num(np.abs(got - want), nan=np.inf).max() / np.abs(want).max())
        worst = max(worst, np.nan_to_num(abs(loss - oracle.loss(x, y, W, b)), nan=np.inf))
    return worst


@pytest.mark.parametrize("sizes", NETS)
def test_backprop_agrees_with_central_differences(backend, sizes):
    assert gradient_error(backend.ops, sizes) < tolerance("gradient", np.float64)[0]


@pytest.mark.parametrize("sizes", NETS)
def test_the_oracle_agrees_with_central_differences(sizes):
    x, y, W, b = problem(sizes)
    for got, want in zip(oracle.gradients(x, y, W, b), oracle.differences(x, y, W, b), strict=True):
        for g, w in zip(got, want, strict=True):
            np.testing.assert_allclose(g, w, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sizes", NETS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_loss_accuracy_and_gradients_are_the_oracles(backend, dtype, sizes, n):
    x, y, W, b = problem(sizes, n)
    dW, db, loss, accuracy = run(backend.ops, x.astype(dtype), y, *([v.astype(dtype) for v in vs] for vs in (W, b)))
    want_W, want_b = oracle.gradients(x, y, W, b)
    for got, want in zip([*dW, *db], [*want_W, *want_b], strict=True):
        assert got.dtype == dtype
        assert_close(got, want, dtype)
    assert_close(loss, oracle.loss(x, y, W, b), dtype)
    assert accuracy == pytest.approx(oracle.accuracy(x, y, W, b))


def test_a_net_worked_by_hand(backend):
    # Two rows, 2-2-2. L = ln 3, so that e^L = 3.
    L = math.log(3)
    x = np.array([[1.0, 2.0], [2.0, 1.0]])
    y = np.array([1, 0])
    W1 = np.array([[1.0, 1.0], [1.0, -1.0]])
    b1 = np.array([-2.0, 0.0])
    W2 = np.array([[L, 0.0], [0.0, L]])
    b2 = np.zeros(2)
    # z1 = x W1 + b1:  row 0: (1+2-2, 1-2+0) = (1, -1)    row 1: (2+1-2, 2-1+0) = (1, 1)
    # a1 = relu(z1):   row 0: (1, 0)                      row 1: (1, 1)
    # z2 = a1 W2:      row 0: (L, 0)                      row 1: (L, L)
    # softmax:         row 0: (3, 1)/4 = (3/4, 1/4)       row 1: (1/2, 1/2)
    # loss = -(ln 1/4 + ln 1/2) / 2 = (2 ln 2 + ln 2) / 2 = 3/2 ln 2
    # row 0 predicts 0, not 1; row 1 is a tie, whose first is 0, right: accuracy 1/2
    # dz2 = (softmax - onehot) / 2: row 0: (3/4, 1/4-1)/2 = (3/8, -3/8)   row 1: (1/2-1, 1/2)/2 = (-1/4, 1/4)
    # dW2 = a1^T dz2:  unit 0: (3/8-1/4, -3/8+1/4) = (1/8, -1/8)          unit 1: (-1/4, 1/4)
    # db2 = (3/8-1/4, -3/8+1/4) = (1/8, -1/8)
    # dz1 = (dz2 W2^T) * (a1 > 0):  row 0: (3L/8, -3L/8) * (1, 0) = (3L/8, 0)   row 1: (-L/4, L/4) * (1, 1)
    # dW1 = x^T dz1:   input 0: (1*3L/8 - 2*L/4, 2*L/4) = (-L/8, L/2)
    #                  input 1: (2*3L/8 - 1*L/4, 1*L/4) = (L/2, L/4)
    # db1 = (3L/8 - L/4, L/4) = (L/8, L/4)
    (dW1, dW2), (db1, db2), loss, accuracy = run(backend.ops, x, y, [W1, W2], [b1, b2])
    assert loss == pytest.approx(1.5 * math.log(2), rel=1e-14)
    assert accuracy == 0.5
    np.testing.assert_allclose(dW2, [[1 / 8, -1 / 8], [-1 / 4, 1 / 4]], rtol=1e-14)
    np.testing.assert_allclose(db2, [1 / 8, -1 / 8], rtol=1e-14)
    np.testing.assert_allclose(dW1, [[-L / 8, L / 2], [L / 2, L / 4]], rtol=1e-14)
    np.testing.assert_allclose(db1, [L / 8, L / 4], rtol=1e-14)


# Each mistake changes one operation. The nets have square hidden layers, so that a swapped transpose still fits.


def drop_the_mask(ops):
    return ops._replace(backprop_relu=lambda dz, W, a, out: np.dot(dz, W.T, out=out))


def turn_the_mask(ops):
    return ops._replace(backprop_relu=lambda dz, W, a, out: np.multiply(dz @ W.T, a <= 0, out=out))


def swap_a_transpose(ops):
    def backprop_relu(dz, W, a, out):
        ops.backprop_relu(dz, W.T if W.shape[0] == W.shape[1] else W, a, out)

    return ops._replace(backprop_relu=backprop_relu)


def drop_one_over_n(ops):
    return ops._replace(
        softmax_cross_entropy=lambda z, y, scale, dz, totals, *rest: ops.softmax_cross_entropy(z, y, 1.0, dz, totals)
    )


def forget_the_row_maximum(ops):
    def softmax_cross_entropy(z, y, scale, dz, totals, *rest):
        e, i = np.exp(z), np.arange(len(z))
        p = e / e.sum(axis=1, keepdims=True)
        totals += -np.log(p[i, y]).sum(), (z.argmax(axis=1) == y).sum()
        p[i, y] -= 1
        dz[:] = p * scale

    return ops._replace(softmax_cross_entropy=softmax_cross_entropy)


def forget_the_target(ops):
    def softmax_cross_entropy(z, y, scale, dz, totals, *rest):
        ops.softmax_cross_entropy(z, y, scale, dz, totals)
        dz[np.arange(len(z)), y] += scale

    return ops._replace(softmax_cross_entropy=softmax_cross_entropy)


def forget_the_logarithm(ops):
    def softmax_cross_entropy(z, y, scale, dz, totals, *rest):
        p = oracle.softmax(z)[np.arange(len(z)), y]
        ops.softmax_cross_entropy(z, y, scale, dz, totals)
        totals[0] -= (p - 1 - np.log(p)).sum()  # 1 - p in place of -log p

    return ops._replace(softmax_cross_entropy=softmax_cross_entropy)


def forget_db(ops):
    return ops._replace(weight_gradient=lambda a, dz, dW, db, add: ops.weight_gradient(a, dz, dW, db.copy(), add))


def forget_to_add(ops):
    return ops._replace(weight_gradient=lambda a, dz, dW, db, add: ops.weight_gradient(a, dz, dW, db, False))


def always_add(ops):
    return ops._replace(weight_gradient=lambda a, dz, dW, db, add: ops.weight_gradient(a, dz, dW, db, True))


def forget_the_bias(ops):
    return ops._replace(affine=lambda x, W, b, out, relu: ops.affine(x, W, np.zeros_like(b), out, relu))


def forget_relu(ops):
    return ops._replace(affine=lambda x, W, b, out, relu: ops.affine(x, W, b, out, False))


def relu_on_the_logits(ops):
    return ops._replace(affine=lambda x, W, b, out, relu: ops.affine(x, W, b, out, True))


@pytest.mark.parametrize(
    "mistake",
    [
        drop_the_mask, turn_the_mask, swap_a_transpose, drop_one_over_n, forget_the_row_maximum, forget_the_target,
        forget_the_logarithm, forget_db, forget_to_add, always_add, forget_the_bias, forget_relu, relu_on_the_logits,
    ],
)  # fmt: skip
def test_the_gradient_check_notices(backend, mistake):
    sizes = (3, 3, 3, 3)
    assert gradient_error(backend.ops, sizes) < 1e-6
    assert gradient_error(mistake(backend.ops), sizes) > 1e-2


def test_forward_does_not_touch_what_it_reads(backend):
    x, _, W, b = problem((4, 5, 3))
    kept = [v.copy() for v in (x, *W, *b)]
    a, _, _, _ = buffers((4, 5, 3), len(x))
    network.forward(backend.ops, (RELU, IDENTITY), x, tuple(W), tuple(b), a, a, a, NONE)
    for got, want in zip((x, *W, *b), kept, strict=True):
        np.testing.assert_array_equal(got, want)
    for got, want in zip(a, oracle.forward(x, W, b)[1:], strict=True):
        assert_close(got, want, np.float64)


def test_softmax_rows_sum_to_one_and_huge_logits_do_not_overflow(dtype):
    z = np.array([[0, 0, 0], [1e4, -1e4, 0], [-1e4, -1e4, -1e4], [3, 2, 1]], dtype)
    p = network.softmax(z)
    assert p.dtype == dtype
    assert_close(p, oracle.softmax(z.astype(np.float64)), dtype)
    assert_close(p.sum(axis=1), 1.0, dtype)


def test_parameter_count_of_the_reference_net():
    assert network.parameter_count((784, 160, 10)) == 784 * 160 + 160 + 160 * 10 + 10 == 127_210


@pytest.mark.parametrize("sizes", NETS)
def test_layer_views_cover_the_flat_array_once(sizes):
    flat = np.arange(network.parameter_count(sizes))
    W, b = network.layer_views(flat, sizes)
    assert [w.shape for w in W] == list(pairwise(sizes))
    assert [v.shape for v in b] == [(units,) for units in sizes[1:]]
    assert all(np.shares_memory(v, flat) and v.flags.c_contiguous for v in (*W, *b))
    assert sorted(np.concatenate([v.ravel() for v in (*W, *b)])) == flat.tolist()


def test_start_weights_have_the_variance_of_he_et_al():
    sizes = (400, 300, 200)
    W, b = network.layer_views(network.initialise(sizes, np.random.default_rng(0), np.dtype("float32")), sizes)
    for w, fan_in in zip(W, sizes, strict=False):
        assert w.std() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)
        assert abs(w.mean()) < 0.001
    assert not any(v.any() for v in b)


def test_one_seed_starts_every_precision_at_the_same_point():
    starts = [network.initialise((5, 4, 3), np.random.default_rng(1), np.dtype(t)) for t in ("float32", "float64")]
    assert [s.dtype.name for s in starts] == ["float32", "float64"]
    np.testing.assert_array_equal(starts[0], starts[1].astype(np.float32))
