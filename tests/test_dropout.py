"""Dropout: which units are left out, and that every backend, team and cut into tiles leaves out the same ones."""

from itertools import product

import numpy as np
import oracle
import pytest
from oracle_elements import mask
from tolerance import assert_close

from fastmlp import backends
from fastmlp.backends.base import Rows
from fastmlp.backends.plan import OpsPlan
from fastmlp.dropout import step_key
from fastmlp.network import Network, initialise, layer_views
from fastmlp.optimizers import Settings, find

SIZES = (19, 17, 9, 4)
SHARE, RATE, SEED, N = 0.3, 0.2, 11, 40


def left_out(backend, a, share, key, first=0):
    out = np.full_like(a, np.nan)
    backend.ops.dropout(a, share, np.uint64(key), first, out)
    return out


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_the_units_of_the_hash_are_left_out_and_the_others_grow(backend, dtype, share):
    a = np.random.default_rng(0).standard_normal((23, 17)).astype(dtype)
    kept = a.copy()
    out = left_out(backend, a, share, 2**63 + 5)
    want = mask(share, 2**63 + 5, 23, 17)
    assert_close(out, a * want, dtype)
    assert (out == 0).tolist() == (want == 0).tolist()
    assert out.dtype == dtype
    np.testing.assert_array_equal(a, kept)
    backend.ops.dropout(a, share, np.uint64(2**63 + 5), 0, a)
    assert a.tobytes() == out.tobytes()


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.95])
def test_the_share_holds_in_all_rows_and_columns(backend, share):
    out = left_out(backend, np.ones((400, 500), np.float32), share, 3) == 0
    sigma = np.sqrt(share * (1 - share))
    assert abs(out.mean() - share) < 4 * sigma / np.sqrt(out.size)
    assert np.abs(out.mean(axis=0) - share).max() < 5 * sigma / np.sqrt(400)
    assert np.abs(out.mean(axis=1) - share).max() < 5 * sigma / np.sqrt(500)
    assert np.corrcoef(out[:, 0], out[:, 1])[0, 1] < 0.25


def test_a_part_of_the_rows_leaves_out_what_the_whole_does(backend, dtype):
    a = np.ones((30, 7), dtype)
    whole = left_out(backend, a, 0.5, 9)
    for first, last in ((0, 11), (11, 12), (12, 30)):
        np.testing.assert_array_equal(left_out(backend, a[first:last], 0.5, 9, first), whole[first:last])


def test_some_units_of_a_layer_leave_out_what_the_layer_does(dtype):
    pytest.importorskip("numba")
    from fastmlp.kernels.cpu.cache import for_python

    from fastmlp.backends import compiled_ops, elements

    elements.publish_dropout(np.dtype(dtype))
    call, want = for_python(compiled_ops.dropout_of_units), mask(0.5, 9, 30, 40)
    for first, last in ((0, 16), (16, 33), (33, 40)):
        out = np.full((30, last - first), np.nan, dtype)
        call.dropout_of_units(np.ones_like(out), 0.5, np.uint64(9), first, 40, out)
        assert_close(out, want[:, first:last], dtype)


def test_steps_layers_and_seeds_have_keys_of_their_own():
    seeds = (0, 1, 2, 2**16, 2**31 - 1, 2**32 - 1)
    keys = [int(step_key(seed, step)) + l for seed, step, l in product(seeds, (0, 1, 2, 77, 10**6), range(4))]
    assert len(set(keys)) == len(keys)
    one, two = (left_out(backends.load("numpy"), np.ones((50, 40)), 0.5, key) == 0 for key in keys[:2])
    assert 0.4 < np.mean(one == two) < 0.6


# Whole nets.


def problem(dtype):
    """x (N, I), y (N,), start values (P,)."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((N, SIZES[0])).astype(dtype), rng.integers(0, SIZES[-1], N).astype(np.int32)
    return x, y, initialise(SIZES, np.random.default_rng(3), dtype)


def learners(backend, parameters):
    """The backend's own, on 1 and on more threads, and the operations one after the other, in one tile and in many.

    The backend's own in one type only: another would be compiled anew, from the same lines.
    """
    net = Network(SIZES, ("tanh", "relu"), dropout=SHARE)
    for threads in (1, 2, 3) if parameters.dtype == np.float32 else ():
        yield backend.plan(net, parameters.copy(), threads).learner(find("momentum"), Settings(seed=SEED))
    for tile_rows in (N, 7):
        plan = OpsPlan(backend, net, parameters.copy())
        plan.tile_rows = tile_rows
        yield plan.learner(find("momentum"), Settings(seed=SEED))


def masks(t):
    """Those of step t of the full batch."""
    return tuple(mask(SHARE, int(step_key(SEED, t)) + l, N, units) for l, units in enumerate(SIZES[1:-1]))


def test_training_follows_the_oracle_with_the_same_masks_back_and_forth(backend, dtype, monkeypatch):
    if backend.name == "numba":
        from fastmlp.backends import numba_learner, numba_plan

        monkeypatch.setattr(numba_learner, "ALONE", 0)  # small work, too, is split over the threads
        monkeypatch.setattr(numba_plan, "START", 0)
    x, y, parameters = problem(dtype)
    start = layer_views(parameters, SIZES)
    net = oracle.Net(("tanh", "relu"))
    curve, _, W, b = oracle.train(x, y, *start, steps=6, rule="momentum", rate=RATE, net=net, masks=masks)
    for made in learners(backend, parameters):
        got = [made.epoch(Rows(x, y), N, np.array([RATE])).loss for _ in range(6)]
        assert_close(got, curve, dtype, "run")
        for array, want in zip(layer_views(made.plan.parameters, SIZES), (W, b), strict=True):
            for one, other in zip(array, want, strict=True):
                assert_close(one, other, dtype, "run")


def test_nothing_is_left_out_but_in_steps(backend, dtype):
    x, y, parameters = problem(dtype)
    W, b = layer_views(parameters, SIZES)
    net = oracle.Net(("tanh", "relu"))
    want = np.concatenate([np.append(w, v) for w, v in zip(*oracle.gradients(x, y, W, b, net=net), strict=True)])
    for made in learners(backend, parameters):
        made.epoch(Rows(x, y), N, np.array([0.0]))  # fills what is kept of units left out
        assert_close(made.plan.logits(x), oracle.forward(x, W, b, net)[-1], dtype)
        loss, gradient = made.gradient(Rows(x, y))
        assert_close(made.plan.evaluate(Rows(x, y))[0], oracle.loss(x, y, W, b, net), dtype)
        assert_close(loss, oracle.loss(x, y, W, b, net), dtype)
        assert_close(gradient, want, dtype)
        assert made.steps == 1


@pytest.mark.parametrize("kind", ["phases", "tiles", "small tiles"])
def test_batches_and_their_parts_leave_out_the_same(kind, monkeypatch):
    """Batches whose rows are split over threads and tiles against the operations, one after the other."""
    pytest.importorskip("numba")
    from fastmlp.backends import numba_learner, numba_plan, numba_ways
    from fastmlp.backends.numba_ways import LARGE

    monkeypatch.setattr(numba_learner, "ALONE", 0)
    monkeypatch.setattr(numba_plan, "START", 0)
    if kind == "phases":
        monkeypatch.setattr(numba_ways, "SMALL", 0)
        monkeypatch.setattr(numba_ways, "FEW", 0)
    rng, dtype = np.random.default_rng(0), np.dtype("float32")
    n, batch = (2 * LARGE + 99, LARGE + 7) if kind == "tiles" else (211, 48)
    x, y = rng.standard_normal((n, SIZES[0])).astype(dtype), rng.integers(0, SIZES[-1], n).astype(np.int32)
    parameters, rates = initialise(SIZES, rng, dtype), np.full(-(-n // batch), 0.1)
    reference, *others = (
        backends.load(name).plan(Network(SIZES, "tanh", dropout=SHARE), parameters.copy(), threads).learner(
            find("momentum"), Settings(seed=SEED))
        for name, threads in (("numpy", 1), ("numba", 1), ("numba", 2), ("numba", 5))
    )  # fmt: skip
    want = [reference.epoch(Rows(x, y), batch, rates) for _ in range(2)]
    for made in others:
        assert_close([made.epoch(Rows(x, y), batch, rates) for _ in range(2)], want, dtype, "run")
        assert_close(made.plan.parameters, reference.plan.parameters, dtype, "run")


def test_without_hidden_layers_there_is_nothing_to_leave_out(backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((20, 5)), rng.integers(0, 3, 20).astype(np.int32)
    ends = []
    for share in (0.0, 0.5):
        plan = OpsPlan(backend, Network((5, 3), dropout=share), initialise((5, 3), np.random.default_rng(0), x.dtype))
        plan.learner(find("sgd"), Settings()).epoch(Rows(x, y), 7, np.full(3, 0.1))
        ends.append(plan.parameters)
    np.testing.assert_array_equal(*ends)
