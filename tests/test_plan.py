"""Buffers, tiles, steps and epochs of one network on one backend."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps import epoch
from tolerance import assert_close
from traced import peak

from fastmlp import backends
from fastmlp.backends.base import Rows
from fastmlp.backends.plan import OpsLearner, OpsPlan, means
from fastmlp.network import Network, initialise, layer_views
from fastmlp.optimizers import OPTIMIZERS, Settings, find

SIZES = (6, 5, 4, 3)


def data(n, sizes=SIZES, dtype=np.float64, seed=0):
    """x (N, I), y (N,) int32."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, sizes[0])).astype(dtype), rng.integers(0, sizes[-1], n).astype(np.int32)


def learner(backend, dtype, sizes=SIZES, rule="momentum", rate=0.1, beta=0.9, tile_rows=None):
    plan = OpsPlan(backend, Network(sizes), initialise(sizes, np.random.default_rng(3), np.dtype(dtype)))
    plan.tile_rows = tile_rows or plan.tile_rows
    made = OpsLearner(plan, find(rule), Settings(beta=beta))
    made.rate = rate
    return made


def start(sizes, dtype):
    """W, b that `learner` starts from."""
    return layer_views(initialise(sizes, np.random.default_rng(3), np.dtype(dtype)), sizes)


def everything(made):
    """All arrays that a learner keeps, but for the losses."""
    tiles = [array for tile in made.plan._tiles.values() for array in (tile.x, *tile.a, *tile.dz)]
    return [made.plan.parameters, made.g, made.state, *made.plan.W, *made.plan.b, *made.dW, *made.db, *tiles]


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("pixels", [False, True])
def test_a_step_widens_nothing(backend, dtype, rule, pixels):
    made = learner(backend, dtype, rule=rule, tile_rows=4)
    x, y = data(10, dtype=dtype)
    x = (x * 50).astype(np.uint8) if pixels else x
    totals = backend.zeros(3, np.dtype("float64"))
    for index in (None, np.arange(10)[::-1]):
        made.step(Rows(x, y), index, 0, 10, totals, made.rate)
    assert totals.dtype == np.float64
    for array in everything(made):
        assert array.dtype == dtype
        assert array.flags.c_contiguous


def test_a_plan_works_in_the_very_array_it_is_given(backend, dtype):
    flat = initialise(SIZES, np.random.default_rng(0), dtype)
    plan = OpsPlan(backend, Network(SIZES), flat)
    assert plan.parameters is flat
    assert all(np.shares_memory(view, flat) for view in (*plan.W, *plan.b))


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("sizes", [(6, 3), (6, 5, 3), (6, 5, 4, 3), (6, 4, 5, 4, 3)], ids=str)
def test_twenty_full_batches_follow_the_oracle(backend, dtype, rule, sizes):
    rate = 0.01 if rule.startswith(("adam", "heavy")) else 0.2
    made = learner(backend, dtype, sizes, rule, rate)
    x, y = data(40, sizes, dtype)
    curve, hits, W, b = oracle.train(x, y, *start(sizes, dtype), steps=20, rule=rule, rate=rate)
    got = [epoch(made, Rows(x, y), 40) for _ in range(20)]
    assert_close([loss for loss, _ in got], curve, dtype, "run")
    assert_close([accuracy for _, accuracy in got], hits, dtype, "run")
    for array, want in zip((*made.plan.W, *made.plan.b), (*W, *b), strict=True):
        assert_close(array, want, dtype, "run")
    assert curve[-1] < curve[0]


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_backends_agree_in_one_process(dtype, rule):
    both = [backends.load(name) for name in ("numpy", "numba")]
    if any(isinstance(loaded, str) for loaded in both):
        pytest.skip("only one CPU backend works here")
    x, y = data(50, dtype=dtype)
    ends = []
    for loaded in both:
        made = learner(loaded, dtype, rule=rule, rate=0.01)
        curve = [epoch(made, Rows(x, y), 16) for _ in range(20)]
        ends.append((curve, made.plan.parameters))
    assert_close(ends[0][0], ends[1][0], dtype, "run")
    assert_close(ends[0][1], ends[1][1], dtype, "run")


def by_batches(x, y, sizes, dtype, batch, rate):
    """One epoch of gradient descent in batches, with the oracle: mean loss, W, b."""
    W, b = ([v.astype(np.float64) for v in vs] for vs in start(sizes, dtype))
    total = 0.0
    for first in range(0, len(x), batch):
        part, labels = x[first : first + batch], y[first : first + batch]
        total += oracle.loss(part, labels, W, b) * len(part)
        dW, db = oracle.gradients(part, labels, W, b)
        W = [w - rate * g for w, g in zip(W, dW, strict=True)]
        b = [v - rate * g for v, g in zip(b, db, strict=True)]
    return total / len(x), W, b


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (7, 3), (5, 5), (5, 8), (3, 1), (1, 1), (1, 9)])
def test_the_last_batch_may_be_smaller_and_is_averaged_over_its_own_rows(backend, dtype, n, batch):
    x, y = data(n, dtype=dtype)
    made = learner(backend, dtype, rule="sgd")
    loss, _ = epoch(made, Rows(x, y), batch)
    want, W, b = by_batches(x, y, SIZES, dtype, batch, 0.1)
    assert_close(loss, want, dtype)
    for array, expected in zip((*made.plan.W, *made.plan.b), (*W, *b), strict=True):
        assert_close(array, expected, dtype)
    assert made.steps == -(-n // batch)


@pytest.mark.parametrize("tile_rows", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("batch", [10, 6])
def test_tiles_add_up_to_the_batch(backend, dtype, tile_rows, batch):
    x, y = data(10, dtype=dtype)
    whole, tiled = learner(backend, dtype), learner(backend, dtype, tile_rows=tile_rows)
    for _ in range(3):
        assert_close(epoch(tiled, Rows(x, y), batch), epoch(whole, Rows(x, y), batch), dtype)
    assert_close(tiled.plan.parameters, whole.plan.parameters, dtype)
    assert_close(tiled.plan.logits(x), whole.plan.logits(x), dtype)
    assert_close(tiled.plan.evaluate(Rows(x, y)), whole.plan.evaluate(Rows(x, y)), dtype)
    assert max(tiled.plan._tiles) <= tile_rows


def test_an_index_picks_rows_and_their_labels(backend, dtype):
    x, y = data(12, dtype=dtype)
    index = np.array([7, 0, 11, 3, 3])
    picked, plain = learner(backend, dtype), learner(backend, dtype)
    assert epoch(picked, Rows(x, y, index), 2) == epoch(plain, Rows(x[index], y[index]), 2)
    np.testing.assert_array_equal(picked.plan.parameters, plain.plan.parameters)
    assert picked.plan.evaluate(Rows(x, y, index)) == plain.plan.evaluate(Rows(x[index], y[index]))
    assert len(Rows(x, y, index)) == 5


def test_evaluate_is_the_oracles_and_moves_nothing(backend, dtype):
    made = learner(backend, dtype, tile_rows=5)
    x, y = data(23, dtype=dtype)
    before = made.plan.parameters.copy()
    loss, accuracy = made.plan.evaluate(Rows(x, y))
    W, b = start(SIZES, dtype)
    assert_close(loss, oracle.loss(x, y, W, b), dtype)
    assert accuracy == pytest.approx(oracle.accuracy(x, y, W, b))
    np.testing.assert_array_equal(made.plan.parameters, before)


def test_probabilities_are_the_softmax_of_the_logits(backend, dtype):
    made = learner(backend, dtype, tile_rows=5)
    x, _ = data(23, dtype=dtype)
    p = made.plan.probabilities(x)
    assert p.dtype == dtype
    assert_close(p, oracle.softmax(oracle.forward(x, *start(SIZES, dtype))[-1]), dtype)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)


def test_probabilities_of_huge_logits_are_finite_and_a_nan_stays_in_its_row(backend, dtype):
    made = learner(backend, dtype)
    x, _ = data(6, dtype=dtype)
    x[2] *= 1e4
    x[4, 0] = np.nan
    p = made.plan.probabilities(x)
    assert np.isnan(p[4]).all()
    assert_close(p[2], oracle.softmax(oracle.forward(x[2:3], *start(SIZES, dtype))[-1])[0], dtype)
    assert np.isfinite(np.delete(p, 4, axis=0)).all()


def test_logits_are_a_new_array_each_time(backend, dtype):
    made = learner(backend, dtype)
    x, _ = data(6, dtype=dtype)
    first = made.plan.logits(x)
    kept = first.copy()
    made.plan.logits(x + 1)
    np.testing.assert_array_equal(first, kept)
    assert first.dtype == dtype
    assert_close(first, oracle.forward(x, *start(SIZES, dtype))[-1], dtype)


def test_a_step_without_beta_is_gradient_descent_to_the_bit(backend, dtype):
    x, y = data(20, dtype=dtype)
    ends = []
    for rule, beta in (("momentum", 0.0), ("nesterov", 0.0), ("sgd", 0.9)):
        made = learner(backend, dtype, rule=rule, beta=beta)
        for _ in range(5):
            epoch(made, Rows(x, y), 6)
        ends.append(made.plan.parameters)
    np.testing.assert_array_equal(ends[0], ends[2])
    np.testing.assert_array_equal(ends[1], ends[2])


def test_buffers_are_made_once(backend, dtype):
    plan = OpsPlan(backend, Network(SIZES), initialise(SIZES, np.random.default_rng(0), dtype))
    large, small = plan.tile(9), plan.tile(4)
    assert plan.tile(9) is large
    assert plan.tile(4) is small
    for whole, part in zip((large.x, *large.a, *large.dz), (small.x, *small.a, *small.dz), strict=True):
        assert whole.shape == (9, *part.shape[1:])
        assert np.shares_memory(whole, part)
    assert plan.tile(12).x.shape == (12, SIZES[0])


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 20))
def test_spans_cover_every_row_once(tile_rows, n, first):
    plan = OpsPlan(backends.load("numpy"), Network((2, 2)), np.zeros(6))
    plan.tile_rows = tile_rows
    spans = list(plan.spans(first, first + n))
    assert [row for a, b in spans for row in range(a, b)] == list(range(first, first + n))
    assert max(b - a for a, b in spans) <= tile_rows


@pytest.mark.parametrize("sizes", [(784, 160, 10), (784, 16, 10), (784, 10), (50_000, 100, 2)], ids=str)
def test_full_batches_of_pixels_never_stand_in_memory_as_floats(backend, sizes):
    # A tile's rows count among what a tile holds: else wide rows of a narrow net are unpacked all at once.
    n = 60_000_000 // sizes[0]
    X, y = np.zeros((n, sizes[0]), np.uint8), np.zeros(n, np.int32)  # 60 MB; as floats 240 MB
    plan = OpsPlan(backend, Network(sizes), initialise(sizes, np.random.default_rng(0), np.dtype("float32")))
    assert peak(lambda: plan.evaluate(Rows(X, y))) < 80e6


def test_means():
    assert means(np.array([6.0, 3.0]), 12) == (0.5, 0.25)
