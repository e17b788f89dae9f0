"""Every operation of the CuPy backend against NumPy in float64, with the kernels run on the CPU.

`OpTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import tolerance

import fastmlp
from fastmlp import network
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.dropout import NONE
from fastmlp.optimizers import OPTIMIZERS, Settings, step_scalars

REALS = [np.dtype(np.float32), np.dtype(np.float64)]
ROWS = [1, 7, 333]  # less than a warp, less than a block, several blocks and a part of one
WIDTHS = [1, 3, 10, 33, 160, 1025]

real_types = pytest.mark.parametrize("real", REALS, ids=str)
row_counts = pytest.mark.parametrize("n", ROWS)
widths = pytest.mark.parametrize("width", WIDTHS)


def close(got: np.ndarray, expected: np.ndarray, real: np.dtype) -> None:
    """`got` has type `real` and lies within rounding of `expected`, measured by its largest value."""
    assert got.dtype == real
    relative, absolute = tolerance("op", real)
    np.testing.assert_allclose(got, expected, rtol=0, atol=absolute + relative * np.abs(expected).max())


class OpTests:
    """The operations, given the fixture `backend`."""

    @pytest.fixture(autouse=True)
    def hands(self, backend) -> None:
        self.backend, self.ops, self.random = backend, backend.ops, np.random.default_rng(7)

    def normal(self, *shape: int, real: np.dtype) -> np.ndarray:
        return self.random.standard_normal(shape).astype(real)

    def put(self, *arrays: np.ndarray) -> list:
        return [self.backend.asarray(array) for array in arrays]

    def poison(self, *shape: int, real: np.dtype):
        return self.backend.asarray(np.full(shape, np.nan, real))

    def get(self, array) -> np.ndarray:
        return self.backend.to_host(array)

    @real_types
    @widths
    @pytest.mark.parametrize("index", ["slice", "int32", "int64"])
    @pytest.mark.parametrize("kind", ["uint8", "real"])
    def test_rows_are_those_of_the_numpy_backend(self, kind, index, width, real):
        X = self.random.integers(0, 256, (50, width)).astype(np.uint8 if kind == "uint8" else real)
        picked = slice(3, 40) if index == "slice" else self.random.permutation(50)[:37].astype(index)
        expected = NumpyBackend.ops.rows(X, picked, np.empty((37, width), real))
        where = picked if index == "slice" else self.backend.asarray(picked)
        got = self.ops.rows(self.backend.asarray(X), where, self.poison(37, width, real=real))
        assert got.dtype == real
        np.testing.assert_array_equal(self.get(got), expected)

    @real_types
    @widths
    @row_counts
    @pytest.mark.parametrize("relu", [False, True])
    def test_affine(self, relu, n, width, real):
        x, W, b = (self.normal(*shape, real=real) for shape in ((n, 20), (20, width), (width,)))
        out = self.poison(n, width, real=real)
        self.ops.affine(*self.put(x, W, b), out, relu)
        z = x.astype(float) @ W + b
        close(self.get(out), np.maximum(z, 0) if relu else z, real)

    @real_types
    def test_affine_lets_nan_pass_through_relu(self, real):
        x = self.normal(5, 4, real=real)
        x[2, 1] = np.nan
        W, b, out = self.normal(4, 3, real=real), self.normal(3, real=real), self.poison(5, 3, real=real)
        self.ops.affine(*self.put(x, W, b), out, True)
        assert np.isnan(self.get(out)).all(axis=1).tolist() == [False, False, True, False, False]

    def cross_entropy(self, z: np.ndarray, y: np.ndarray, scale: float, in_place: bool = False):
        """dz and totals, which start at [1, 2]."""
        totals = self.backend.asarray(np.array([1.0, 2.0]))
        z, y = self.put(z, y.astype(np.int32))
        dz = z if in_place else self.poison(*z.shape, real=z.dtype)
        self.ops.softmax_cross_entropy(z, y, scale, dz, totals)
        return self.get(dz), self.get(totals)

    @real_types
    @widths
    @row_counts
    @pytest.mark.parametrize("in_place", [False, True])
    def test_softmax_cross_entropy(self, in_place, n, width, real):
        z, y = 4 * self.normal(n, width, real=real), self.random.integers(0, width, n)
        got, totals = self.cross_entropy(z, y, 1 / n, in_place)
        e = np.exp(z - z.max(axis=1, keepdims=True).astype(float))
        p = e / e.sum(axis=1, keepdims=True)
        close(got * n, p - np.eye(width)[y], real)
        loss = -np.log(p[np.arange(n), y]).sum()
        assert totals[0] == pytest.approx(1 + loss, rel=tolerance("op", real)[0])
        assert totals[1] == 2 + (z.argmax(axis=1) == y).sum()

    @real_types
    @widths
    def test_of_equal_logits_the_first_is_the_answer(self, width, real):
        z = np.zeros((width, width), real)  # row k: the largest stand at k and at every place behind it
        z[np.triu_indices(width)] = 1
        _, totals = self.cross_entropy(z, np.arange(width), 1.0)
        assert totals[1] == 2 + width
        _, totals = self.cross_entropy(z, (np.arange(width) + 1) % width, 1.0)
        assert totals[1] == 2 + (width == 1)

    @real_types
    def test_softmax_of_far_logits_stays_finite(self, real):
        z = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]], real)
        dz, totals = self.cross_entropy(z, np.array([1, 2]), 1.0)
        close(dz, np.array([[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]]), real)
        assert totals[0] == pytest.approx(1 + 1e4 + np.log(3))

    @real_types
    @pytest.mark.parametrize("place", [0, 5, 39])
    def test_nan_logit_shows_in_loss_and_in_its_row(self, place, real):
        z = self.normal(3, 40, real=real)
        z[1, place] = np.nan
        dz, totals = self.cross_entropy(z, np.zeros(3), 1.0)
        assert np.isnan(totals[0])
        assert np.isnan(dz).all(axis=1).tolist() == [False, True, False]
        assert np.isfinite(dz[[0, 2]]).all()

    @real_types
    @widths
    @row_counts
    def test_backprop_relu(self, n, width, real):
        dz, W, a = (self.normal(*shape, real=real) for shape in ((n, 20), (width, 20), (n, width)))
        a[self.random.random(a.shape) < 0.3] = 0
        out = self.poison(n, width, real=real)
        self.ops.backprop_relu(*self.put(dz, W, a), out)
        close(self.get(out), (dz.astype(float) @ W.T) * (a > 0), real)

    @real_types
    @widths
    @pytest.mark.parametrize("n", [*ROWS, 2000])
    @pytest.mark.parametrize("add", [False, True])
    def test_weight_gradient(self, add, n, width, real):
        a, dz = self.normal(n, 6, real=real), self.normal(n, width, real=real)
        start = (self.normal(6, width, real=real), self.normal(width, real=real)) if add else (np.nan, np.nan)
        dW, db = self.put(np.full((6, width), start[0], real), np.full(width, start[1], real))
        self.ops.weight_gradient(*self.put(a, dz), dW, db, add)
        before = start if add else (0, 0)
        close(self.get(dW), before[0] + a.astype(float).T @ dz, real)
        close(self.get(db), before[1] + dz.astype(float).sum(axis=0), real)

    @real_types
    @pytest.mark.parametrize("P", [1, 255, 1000])
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_update_follows_the_rule(self, name, P, real):
        rule, states, rate = OPTIMIZERS[name]
        w, s = self.normal(P, real=real), np.zeros((states, P), real)
        device_w, device_s = self.put(w, s)
        w, s = w.astype(float), s.astype(float)
        for t in (1, 2, 3):
            g = self.normal(P, real=real)
            g[1::7] = 0  # a unit that never fires: Adam must not divide by zero
            h = step_scalars(rule, rate, Settings(weight_decay=0.02), t, real, 0.01)
            rule(w, g.astype(float), s, slice(None), h)
            self.ops.update(rule, device_w, self.backend.asarray(g), device_s, h)
        close(self.get(device_w), w, real)
        if states:
            close(self.get(device_s), s, real)

    def epoch(self, backend, real: np.dtype, optimizer: str = "momentum"):
        """One epoch of batches of 64 over 200 rows of pixels, in two tiles each; params and totals on the device."""
        random, sizes = np.random.default_rng(3), (30, 17, 5)
        X, y = random.integers(0, 256, (200, 30)).astype(np.uint8), random.integers(0, 5, 200).astype(np.int32)
        rule, states, rate = OPTIMIZERS[optimizer]
        net = network.Network(sizes)
        params = backend.asarray(network.initialise(sizes, random, real))
        grads, state = backend.zeros(len(params), real), backend.zeros((states, len(params)), real)
        (W, b), (dW, db) = network.layer_views(params, sizes), network.layer_views(grads, sizes)
        x, totals = backend.zeros((40, 30), real), backend.zeros(2, np.dtype(np.float64))
        a, dz = (tuple(backend.zeros((40, width), real) for width in sizes[1:]) for _ in "ad")
        X, y, order = backend.asarray(X), backend.asarray(y), backend.asarray(random.permutation(200))
        for t, start in enumerate(range(0, 200, 64), 1):
            batch = order[start : start + 64]
            for tile in range(0, len(batch), 40):
                picked = batch[tile : tile + 40]
                n = len(picked)
                network.loss_and_gradients(
                    backend.ops, net, (0, 0, 0), backend.ops.rows(X, picked, x[:n]), y[picked], None, 1 / len(batch),
                    W, b, network.Units(*(tuple(l[:n] for l in layers) for layers in (a, a, a, dz))), dW, db,
                    totals, tile > 0, NONE,
                )  # fmt: skip
            backend.ops.update(rule, params, grads, state, step_scalars(rule, rate, Settings(), t, real))
        return params, totals

    @real_types
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_epoch_is_that_of_the_numpy_backend(self, optimizer, real):
        params, totals = (self.get(array) for array in self.epoch(self.backend, real, optimizer))
        expected, expected_totals = self.epoch(NumpyBackend(), np.dtype(np.float64), optimizer)
        close(params, expected, real)
        np.testing.assert_allclose(totals, expected_totals, rtol=tolerance("op", real)[0])

    @real_types
    def test_two_epochs_give_the_same_bits(self, real):
        first, second = (
            b"".join(self.get(array).tobytes() for array in self.epoch(self.backend, real)) for _ in range(2)
        )
        assert first == second


class TestEmulated(OpTests):
    """On the CPU, each launch with another order of threads."""

    @pytest.fixture
    def backend(self, emulated):
        return emulated

    def test_no_host_read_within_an_epoch(self, cupy):
        before = cupy.host_reads
        _, totals = self.epoch(self.backend, REALS[0])
        assert cupy.host_reads == before
        self.get(totals)
        assert cupy.host_reads == before + 1

    @pytest.mark.parametrize("kind", ["uint8", "real"])
    def test_training_from_end_to_end(self, kind, cupy):
        X = self.random.integers(0, 256, (100, 12)).astype(np.uint8 if kind == "uint8" else np.float64)
        X, y = X if kind == "uint8" else X / 255, X[:, :3].argmax(axis=1)
        options = dict(validation=0.2, hidden=(9, 8), epochs=3, precision="float64", progress=False)

        def train(backend, batch_size):
            before = cupy.host_reads
            model = fastmlp.train(X, y, backend=backend, batch_size=batch_size, **options)
            return model, cupy.host_reads - before

        model, _ = train("cupy", 32)
        expected, _ = train("numpy", 32)
        assert model.report.backend == "cupy"
        for got, want in zip(model.weights, expected.weights, strict=True):
            close(got, want, REALS[1])
        np.testing.assert_array_equal(model.predict(X), expected.predict(X))
        assert train("cupy", 8)[1] == train("cupy", "full")[1] == 3 * 3  # totals twice and weights, not steps

    def test_array_on_the_device_stays_in_place(self, cupy):
        array = cupy.zeros(3)
        assert self.backend.asarray(array) is array

    def test_slice_of_real_rows_is_a_view(self, cupy):
        X = cupy.zeros((9, 4), np.float32)
        rows = self.ops.rows(X, slice(2, 5), cupy.empty((3, 4), np.float32))
        assert np.shares_memory(rows.values, X.values)

    def test_kernels_refuse_what_they_would_misread(self, cupy):
        z, b = cupy.zeros((4, 6), np.float32), cupy.zeros(6, np.float32)
        from fastmlp.kernels import cuda

        with pytest.raises(ValueError, match="strided"):
            cuda.bias_relu(z[:, :3], b[:3], True)
        with pytest.raises(ValueError, match=r"shape \(6,\), got C-ordered float32 \(3,\)"):
            cuda.bias_relu(z, b[:3], True)
        with pytest.raises(ValueError, match="float32 array"):
            cuda.bias_relu(z, cupy.zeros(6, np.float64), True)
        with pytest.raises(ValueError, match="NumPy array"):
            cuda.bias_relu(z, np.zeros(6, np.float32), True)
        with pytest.raises(ValueError, match="int32 array"):
            cuda.softmax_cross_entropy(z, cupy.zeros(4, np.int64), 1.0, z, cupy.zeros(2))

    def test_whole_batch_in_one_tile_unless_it_is_huge(self):
        assert self.backend.tile_rows((784, 160, 10)) > 60_000
        assert self.backend.tile_rows((784, 100_000, 10)) < 2_000

    def test_describe(self):
        facts = self.backend.describe()
        assert facts["device"] == "Emulated card, 3 GiB, compute capability 9.0"
        assert facts["blas"] == "cuBLAS 13.2.1"
        assert facts["threads"] is None
        assert facts["versions"].keys() == {"numpy", "cupy", "cuda runtime"}
        with self.backend.limit_threads(3):
            pass
