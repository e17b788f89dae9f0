"""Networks on the CuPy backend: what a whole plan and its learner compute, against the oracle and the NumPy backend.

`PlanTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

from contextlib import nullcontext

import fake_array
import fake_card
import fake_cupy
import numpy as np
import oracle
import pytest
from cuemu import blas
from tolerance import assert_close

from fastmlp.backends.base import Rows
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.network import Network, initialise, layer_views
from fastmlp.optimizers import OPTIMIZERS, Settings, find

HOST = NumpyBackend()
SIZES = (30, 17, 5)
DEEP = (30, 21, 17, 5)
REAL = {"float64": np.float64}  # of the parameters; float32 at every other precision
# Relative to the largest number, after some steps: what rounding the operands of products to fewer bits allows.
LOW = {"tf32": 1e-2, "float16": 1e-2, "bfloat16": 4e-2}


def data(kind="uint8", n=200, seed=3, sizes=SIZES):
    """X (N, I), y (N,) int32."""
    random = np.random.default_rng(seed)
    X = random.integers(0, 256, (n, sizes[0]), np.uint8)
    return (X if kind == "uint8" else X / 255), random.integers(0, sizes[-1], n).astype(np.int32)


class PlanTests:
    """Plans, given the fixture `backend`."""

    @pytest.fixture(autouse=True)
    def hands(self, backend):
        self.backend = backend

    def start(self, network, precision="float64"):
        return initialise(network.sizes, np.random.default_rng(5), np.dtype(REAL.get(precision, np.float32)))

    def plan(self, network, precision="float64"):
        return self.backend.plan(network, self.start(network, precision), None, precision)

    def rows(self, X, y, index=None, weight=None, real=np.float64, backend=None):
        put = (backend or self.backend).asarray
        y = y if y.dtype == np.int32 else y.astype(real)
        return Rows(
            put(X if X.dtype == np.uint8 else X.astype(real)), put(y), index,
            None if weight is None else put(weight.astype(real)),
        )  # fmt: skip

    def run(self, backend, network, precision, X, y, *, batch=64, epochs=2, weight=None, rule="momentum", rate=0.2,
            l2=None, settings=None, index=True, tensor=True):  # fmt: skip
        """Epochs in an order of their own each: [totals of each], parameters, [loss, accuracy], logits."""
        real = REAL.get(precision, np.float32)
        start = self.start(network, precision)
        plan = backend.plan(network, start, None, *([precision] if backend is self.backend else []))
        learner = plan.learner(find(rule), settings or Settings(seed=4))
        if not tensor and backend is self.backend:
            learner.tensor = None
        random, n = np.random.default_rng(6), len(y)
        steps, totals = -(-n // batch), []
        rows = self.rows(X, y, None, weight, real, backend)
        learner.prepare(rows, batch)
        for _ in range(epochs):
            order = random.permutation(n) if index else None
            now = Rows(rows.X, rows.y, order, rows.weight)
            totals.append(learner.epoch(now, batch, np.full(steps, rate), None if l2 is None else np.full(steps, l2)))
        assert learner.steps == epochs * steps
        X = X if X.dtype == np.uint8 else X.astype(real)
        return np.array(totals), backend.to_host(plan.parameters), plan.evaluate(rows), plan.logits(X), learner

    def agree(self, network, precision, X, y, **options):
        """Both backends do the same."""
        reference = "float64" if precision == "float64" else "float32"
        want, got = (
            self.run(HOST, network, reference, X, y, **options),
            self.run(self.backend, network, precision, X, y, **options),
        )
        for a, b in zip(got[:4], want[:4], strict=True):
            if precision in LOW:
                np.testing.assert_allclose(a, b, rtol=0, atol=LOW[precision] * np.abs(b).max())
            else:
                assert_close(np.asarray(a), np.asarray(b), REAL.get(precision, np.float32), "run")
        return got[4]

    @pytest.mark.parametrize("precision", ["float64", "float32"])
    @pytest.mark.parametrize("sizes", [(30, 5), SIZES, DEEP], ids=str)
    def test_full_batches_follow_the_oracle(self, sizes, precision):
        X, y = data("real")
        network, real = Network(sizes), REAL.get(precision, np.float32)
        plan = self.plan(network, precision)
        learner, rows = plan.learner(find("momentum"), Settings()), self.rows(X, y, real=real)
        got = [learner.epoch(rows, len(y), np.array([0.3])) for _ in range(8)]
        curve, hits, W, b = oracle.train(
            X.astype(real), y, *layer_views(self.start(network, precision), sizes), steps=8, rate=0.3
        )
        assert_close([totals.loss for totals in got], curve, real, "run")
        assert_close([totals.accuracy for totals in got], hits, real, "run")
        for array, want in zip((*plan.W, *plan.b), (*W, *b), strict=True):
            assert_close(self.backend.to_host(array), want, real, "run")

    @pytest.mark.parametrize("n", [1, 31, 33, 200])
    def test_gradient_is_the_oracles(self, n):
        X, y = data("real", n)
        for network in (Network(SIZES), Network(DEEP)):
            learner = self.plan(network).learner(find("sgd"), Settings())
            loss, g = learner.gradient(self.rows(X, y))
            W, b = layer_views(self.start(network), network.sizes)
            dW, db = oracle.gradients(X, y, W, b)
            assert loss == pytest.approx(oracle.loss(X, y, W, b))
            for got, want in zip(layer_views(g, network.sizes), (dW, db), strict=True):
                for a, v in zip(got, want, strict=True):
                    assert_close(a, v, np.float64)

    @pytest.mark.parametrize("precision", ["float32", "float64", *LOW])
    @pytest.mark.parametrize("kind", ["uint8", "real"])
    @pytest.mark.parametrize("sizes", [SIZES, DEEP], ids=str)
    def test_batches_are_those_of_the_numpy_backend(self, sizes, kind, precision):
        self.agree(Network(sizes), precision, *data(kind))

    @pytest.mark.parametrize("precision", ["float64", "float16"])
    @pytest.mark.parametrize("activation", ["relu", ("silu", "tanh", "relu")], ids=str)
    def test_the_middle_of_a_deep_net_gives_what_its_operations_do(self, activation, precision):
        X, y = data("real")
        learner = self.plan(Network((30, 12, 21, 50, 5), activation), precision).learner(find("sgd"), Settings())
        rows = self.rows(X, y, real=REAL.get(precision, np.float32))
        assert learner.fused
        loss, g = learner.gradient(rows)
        learner.fused = False
        want_loss, want = learner.gradient(rows)
        tolerance = LOW.get(precision, 1e-12)
        assert loss == pytest.approx(want_loss, rel=tolerance)
        np.testing.assert_allclose(g, want, rtol=0, atol=tolerance * np.abs(want).max())

    @pytest.mark.parametrize("network", [
        Network(DEEP, ("relu", "tanh")), Network(DEEP, dropout=0.1), Network(DEEP, loss="squared_error"),
        Network(DEEP, numbers=(0.1, 0.0, 0.0)), Network((30, 5)), Network((30, 2000, 5)),
    ], ids=str)  # fmt: skip
    def test_the_middle_leaves_alone_what_it_cannot_do(self, network):
        assert not self.plan(network).learner(find("sgd"), Settings()).fused

    @pytest.mark.parametrize("options", [
        {"rule": "adam", "rate": 0.01}, {"l2": 0.01}, {"settings": Settings(clip=0.05)}, {"batch": 200}, {"weight": 1},
    ], ids=str)  # fmt: skip
    def test_tensor_cores_take_small_nets_of_pixels(self, options):
        if "weight" in options:
            options["weight"] = np.random.default_rng(9).random(200)
        learner = self.agree(Network(SIZES), "float16", *data(), **options)
        if learner.tensor and "settings" not in options:  # they do not clip
            assert learner.session.work is not None
        assert self.agree(Network(SIZES), "float16", *data(), tensor=False, **options).session.work is None
        X, y = data()
        rows = self.rows(X, y)
        loss, g = learner.gradient(rows)
        learner.tensor = None
        assert loss == pytest.approx(learner.gradient(rows)[0], rel=1e-3)
        np.testing.assert_allclose(g, learner.gradient(rows)[1], atol=1e-2 * np.abs(g).max())

    @pytest.mark.parametrize("rule", OPTIMIZERS)
    def test_every_rule(self, rule):
        rate, decay = 0.02, 0.1 if rule == "adamw" else 0.0
        self.agree(Network(SIZES), "float64", *data(), rule=rule, rate=rate, settings=Settings(weight_decay=decay))

    @pytest.mark.parametrize("options", [
        {"l2": 0.01}, {"settings": Settings(clip=0.05)}, {"index": False}, {"index": False, "batch": 200},
        {"l2": 0.02, "settings": Settings(clip=0.05), "rule": "adam", "rate": 0.01}, {"batch": 200, "epochs": 3},
        {"batch": 1000}, {"batch": 3, "epochs": 1},
    ], ids=str)  # fmt: skip
    def test_penalty_clipping_order_and_size_of_batches(self, options):
        self.agree(Network(SIZES), "float64", *data(), **options)

    @pytest.mark.parametrize(
        "activation",
        ["identity", "logistic", "tanh", "leaky_relu", "elu", "gelu", "silu", ("relu", "gelu"), ("gelu", "relu")],
    )
    def test_every_activation(self, activation):
        self.agree(Network(DEEP, activation), "float64", *data("real"), epochs=1)

    @pytest.mark.parametrize("activation", ["relu", "silu"])
    def test_dropout(self, activation):
        self.agree(Network(DEEP, activation, dropout=0.3), "float64", *data())

    @pytest.mark.parametrize("numbers", [(), (0.1, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.0, 1.5)], ids=str)
    def test_weights_of_rows_smoothing_and_focus(self, numbers):
        weight = np.random.default_rng(9).random(200)
        self.agree(Network(SIZES, numbers=numbers), "float64", *data(), weight=weight)

    @pytest.mark.parametrize("loss", ["logistic", "squared_error", "poisson", "absolute_error", "huber", "quantile"])
    def test_elementwise_losses(self, loss):
        X, _ = data("real")
        y = (X[:, :5] > 0.5).astype(float)
        numbers = (0.5,) * 5 if loss in ("huber", "quantile", "logistic") else ()
        self.agree(Network(SIZES, "tanh", loss, numbers), "float64", X, y, rate=0.05, weight=1 + X[:, 0])

    def test_tiles_add_up_to_the_batch(self, monkeypatch):
        make = type(self.backend).plan

        def small(*arguments):
            plan = make(*arguments)
            plan.tile_rows = 37
            return plan

        monkeypatch.setattr(type(self.backend), "plan", small)
        for network in (Network(SIZES), Network(DEEP), Network(DEEP, dropout=0.2)):
            for n in (200, 190):  # a last batch of several tiles, and of one
                learner = self.agree(network, "float64", *data(n=n), batch=80)
                assert learner.launches == "one by one: a batch takes several tiles"

    def test_a_smaller_batch_may_have_more_shares(self, monkeypatch):
        from fastmlp.kernels.cuda import sums

        monkeypatch.setattr(sums, "MOST_SLOTS", 4)
        assert sums.slots(40) < sums.slots(32)
        for network in (Network(SIZES), Network(DEEP, "tanh")):
            self.agree(network, "float64", *data(n=72), batch=40)

    def test_rows_stay_in_place_from_full_batch_to_full_batch(self, monkeypatch):
        from fastmlp.kernels import cuda

        gather, calls = cuda.gather, []
        monkeypatch.setattr(cuda, "gather", lambda *a, **k: (calls.append(1), gather(*a, **k)))
        X, y = data()
        learner, rows = self.plan(Network(SIZES)).learner(find("sgd"), Settings()), self.rows(X, y)
        first = learner.epoch(rows, 200, np.array([0.0]))
        assert learner.epoch(rows, 200, np.array([0.0])) == first
        assert len(calls) == 1
        learner.epoch(Rows(rows.X, rows.y, np.arange(200)), 200, np.array([0.0]))
        assert len(calls) == 2

    @pytest.mark.parametrize("l2", [0.01, None])
    @pytest.mark.parametrize("precision", ["float32", "float16"])
    @pytest.mark.parametrize(
        "network", [Network(SIZES), Network(DEEP), Network(DEEP, dropout=0.2)], ids=["small", "deep", "dropout"]
    )
    def test_graphs_give_the_bits_of_launches_one_by_one(self, network, precision, l2, monkeypatch):
        from fastmlp.backends import cupy_learner

        monkeypatch.setattr(cupy_learner, "GRAPH_STEPS", 3)
        options = dict(batch=16, l2=l2, epochs=2)
        graphs = self.run(self.backend, network, precision, *data(), **options)
        assert graphs[4].launches == "CUDA graphs of up to 3 steps"
        monkeypatch.setattr(cupy_learner.CupyLearner, "capture", None)
        single = self.run(self.backend, network, precision, *data(), **options)
        assert single[4].launches.startswith("one by one: TypeError")
        for a, b in zip(graphs[:4], single[:4], strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    def test_several_passes_over_weighted_rows_as_they_stand(self):
        X, y = data()
        rows = self.rows(X, y, weight=np.random.default_rng(1).random(200))
        one, several = (self.plan(Network(SIZES)).learner(find("sgd"), Settings()) for _ in range(2))
        for batch in (64, 200):
            rates = np.full((3, -(-200 // batch)), 0.1)
            assert several.epochs(rows, batch, rates) == [one.epoch(rows, batch, each) for each in rates]

    @pytest.mark.parametrize("precision", ["float64", "float16"])
    def test_a_gradient_between_epochs_changes_nothing(self, precision):
        X, y = data()
        rows, results = self.rows(X, y, real=REAL.get(precision, np.float32)), []
        for between in (False, True):
            learner = self.plan(Network(SIZES), precision).learner(find("momentum"), Settings())
            for _ in range(3):
                if between:
                    learner.gradient(rows)
                learner.epoch(rows, 200, np.array([0.1]))
            results.append(self.backend.to_host(learner.plan.parameters))
        np.testing.assert_array_equal(*results)

    @pytest.mark.parametrize("stop", [False, True])
    def test_prepare_leaves_all_as_it_was_even_if_it_is_interrupted(self, stop, monkeypatch):
        X, y = data()
        rows, learner = self.rows(X, y), self.plan(Network(SIZES)).learner(find("heavy_ball"), Settings())
        learner.epoch(rows, 64, np.full(4, 0.1))
        before, step = [self.backend.to_host(array) for array in (learner.plan.parameters, learner.state)], learner.step

        def interrupted(*arguments):
            step(*arguments)
            raise KeyboardInterrupt

        if stop:
            monkeypatch.setattr(learner, "step", interrupted)
        with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
            learner.prepare(rows, 48)
        assert learner.steps == 4
        for array, was in zip((learner.plan.parameters, learner.state), before, strict=True):
            np.testing.assert_array_equal(self.backend.to_host(array), was)

    @pytest.mark.parametrize("precision", ["float64", "float16"])
    @pytest.mark.parametrize(("batch", "index"), [(64, True), (64, False), (200, True), (200, False)])
    def test_several_epochs_in_one_call_are_the_same_epochs(self, batch, index, precision):
        X, y = data()
        steps, rows = -(-200 // batch), self.rows(X, y, real=REAL.get(precision, np.float32))
        one, several = (self.plan(Network(SIZES), precision).learner(find("adam"), Settings()) for _ in range(2))
        random, rates = np.random.default_rng(3), np.linspace(0.01, 0.02, 6 * steps).reshape(6, steps)
        for calls in ([0, 1, 2], [3, 4], [5]):  # the second and the third use the places of the first
            orders = [random.permutation(200) for _ in calls] if index else [None] * len(calls)
            want = [
                one.epoch(Rows(rows.X, rows.y, order), batch, rates[k]) for order, k in zip(orders, calls, strict=True)
            ]
            together = Rows(rows.X, rows.y, np.concatenate(orders) if index else None)
            assert several.epochs(together, batch, rates[calls]) == want
        np.testing.assert_array_equal(*(self.backend.to_host(it.plan.parameters) for it in (one, several)))

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    def test_two_runs_give_the_same_bits(self, precision):
        first, second = (self.run(self.backend, Network(DEEP), precision, *data()) for _ in range(2))
        for a, b in zip(first[:4], second[:4], strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    def test_weights_that_were_changed_count_at_once(self):
        plan = self.plan(Network(SIZES), "float16")
        X, _ = data()
        before = plan.logits(X)
        plan.parameters[:] = self.backend.asarray(2 * self.start(Network(SIZES), "float16"))
        assert not np.allclose(plan.logits(X), before)

    def test_rows_on_the_host_are_brought_over(self):
        X, y = data()
        sparse = pytest.importorskip("scipy.sparse")
        for host_X in (X, X / 255, sparse.csr_matrix(X / 255)):
            X = host_X if isinstance(host_X, np.ndarray) else host_X.toarray()
            plan = self.plan(Network(SIZES))
            learner = plan.learner(find("momentum"), Settings())
            rows = self.rows(X, y, np.random.default_rng(1).permutation(200))
            host = Rows(host_X, rows.y, rows.index)
            other = self.plan(Network(SIZES)).learner(find("momentum"), Settings())
            for batch in (64, 200):
                rates = np.full(-(-200 // batch), 0.1)
                assert learner.epoch(host, batch, rates) == other.epoch(rows, batch, rates)
            assert learner.launches.startswith("one by one: ")
            assert plan.evaluate(host) == other.plan.evaluate(rows)
            np.testing.assert_array_equal(plan.logits(host_X), other.plan.logits(X))


class TestEmulated(PlanTests):
    """On the CPU, each launch with another order of threads."""

    @pytest.fixture
    def backend(self, emulated):
        return emulated

    def test_nothing_crosses_to_the_host_within_an_epoch(self):
        X, y = data()
        for precision in ("float32", "float16"):
            plan = self.plan(Network(SIZES), precision)
            learner, rows = plan.learner(find("momentum"), Settings()), self.rows(X, y, np.arange(200), real=np.float32)
            learner.prepare(rows, 8)
            before = fake_array.host_reads
            for _ in range(2):
                learner.epoch(rows, 8, np.full(25, 0.1))
            assert fake_array.host_reads == before + 2  # the totals of each epoch

    @pytest.mark.parametrize("network", [Network(SIZES), Network(DEEP)], ids=["small", "deep"])
    def test_a_capture_compiles_nothing(self, network):
        from fastmlp.kernels.cuda import nvrtc, tensor

        for cached in (nvrtc.module, nvrtc.kernel, tensor.kernel):
            cached.cache_clear()
        X, y = data()
        learner = self.plan(network, "float16").learner(find("momentum"), Settings())
        learner.epoch(self.rows(X, y, np.arange(200)), 4, np.full(50, 0.1))
        assert learner.launches.startswith("CUDA graphs")

    # gather, middle, update beside the products; of a layer below, add_bias and delta
    @pytest.mark.parametrize(("sizes", "kernels"), [(SIZES, 3), (DEEP, 5)], ids=str)
    def test_an_epoch_is_a_few_graphs(self, sizes, kernels):
        X, y = data()
        learner, rows = self.plan(Network(sizes)).learner(find("momentum"), Settings()), self.rows(X, y)
        learner.epoch(rows, 3, np.full(67, 0.1))
        before, launches = fake_card.Graph.launched, fake_cupy.launches
        learner.epoch(rows, 3, np.full(67, 0.1))
        assert fake_card.Graph.launched - before == 4  # 66 = 2 * 32 + 2, and the last batch, of 2 rows
        assert fake_cupy.launches - launches == 67 * kernels + 4  # and one behind each graph

    def test_memory_stays_where_it_is_and_is_returned(self):
        X, y = data()
        before = fake_card.memory_used
        plan = self.plan(Network(SIZES))
        learner, rows = plan.learner(find("adam"), Settings()), self.rows(X, y)
        learner.epoch(rows, 16, np.full(13, 0.1))
        after_one = fake_card.memory_used
        for _ in range(3):
            learner.epoch(rows, 16, np.full(13, 0.1))
        assert fake_card.memory_used == after_one
        handles = blas().fake_handles()
        del plan, learner, rows
        assert fake_card.memory_used == before
        assert blas().fake_handles() == handles - 1

    def test_without_cublas_by_its_c_interface_cupys_is_used(self, monkeypatch):
        from fastmlp.kernels.cuda import products

        expected = self.run(self.backend, Network(SIZES), "float32", *data())
        monkeypatch.setattr(products, "library", lambda: "OSError: no such file")
        got = self.run(self.backend, Network(SIZES), "float32", *data())
        assert got[4].launches == "one by one: OSError: no such file"
        np.testing.assert_array_equal(got[1], expected[1])

    def test_a_large_array_goes_through_pinned_blocks(self, monkeypatch):
        from fastmlp.backends import cupy_data

        monkeypatch.setattr(cupy_data, "SMALL", 0)
        monkeypatch.setattr(cupy_data, "BLOCK", 1000)
        for array in (
            np.random.default_rng(0).random((77, 13)),
            np.arange(5000, dtype=np.uint8).reshape(100, 50)[:, ::2],
        ):
            np.testing.assert_array_equal(self.backend.to_host(self.backend.asarray(array)), array)

    @pytest.mark.parametrize("precision", ["float32", "float16"])
    def test_what_found_no_room_is_made_the_next_time(self, precision, monkeypatch):
        X, y = data()
        network, rows = Network(SIZES), self.rows(X, y, real=np.float32)
        learner, other = (self.plan(network, precision).learner(find("sgd"), Settings()) for _ in range(2))
        learner.gradient(Rows(rows.X, rows.y, np.arange(40)))
        with monkeypatch.context() as patch:
            patch.setattr(fake_card, "memory_limit", fake_card.memory_used + 6_000)
            with pytest.raises(fake_card.OutOfMemoryError):
                learner.epoch(rows, 64, np.full(4, 0.1))
        assert learner.epoch(rows, 64, np.full(4, 0.1)) == other.epoch(rows, 64, np.full(4, 0.1))

    def test_rows_for_which_there_is_no_room_stay_on_the_host(self, monkeypatch):
        X = np.zeros((2000, 1000), np.uint8)
        monkeypatch.setattr(fake_card, "memory_limit", fake_card.memory_used + 10**6)
        freed = fake_cupy.freed
        with pytest.warns(UserWarning, match=r"no room for 2 MB of rows .*: they stay in the host's memory"):
            kept = self.backend.asarray(X)
        assert kept is X
        assert fake_cupy.freed > freed
