"""Every operation of the CuPy backend against the plain rules in float64, with the kernels run on the CPU.

`OpTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import tolerance

from fastmlp import activations, dropout, losses
from fastmlp.backends.base import Ops
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.network import Network
from fastmlp.optimizers import OPTIMIZERS, Settings, step_scalars

HOST: Ops = NumpyBackend.ops
PRECISIONS = ["float32", "float64", "float16", "bfloat16"]
ROUNDING = {"float16": 2**-10, "bfloat16": 2**-7}  # of a result that is kept in 16 bits, relative
ROWS = [1, 33, 333]  # less than a warp, a tile and one row, several tiles and a part of one
WIDTHS = [1, 10, 33, 300]

row_counts = pytest.mark.parametrize("n", ROWS)
widths = pytest.mark.parametrize("width", WIDTHS)


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of each value as a bfloat16, to the nearest, of two equally near the even one."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_item(array: np.ndarray) -> np.ndarray:
    """The numbers that an array of any item type holds, in float64."""
    return ((array.astype(np.uint32) << 16).view(np.float32) if array.dtype == np.uint16 else array).astype(float)


class OpTests:
    """The operations, given the fixture `backend`."""

    @pytest.fixture(params=PRECISIONS, autouse=True)
    def hands(self, request, backend):
        from fastmlp.kernels import cuda

        self.precision, self.cuda, self.backend = request.param, cuda, backend
        plan = backend.plan(
            Network((1, 1)), np.zeros(2, "f8" if request.param == "float64" else "f4"), None, request.param
        )
        self.plan, self.ops, self.real, self.item = plan, plan.ops, plan.precision.real, plan.precision.item
        self.random = np.random.default_rng(7)
        with plan.here():
            yield

    def normal(self, *shape: int) -> np.ndarray:
        """Numbers that an item holds exactly, in float64."""
        return from_item(self.items(self.random.standard_normal(shape)))

    def items(self, values: np.ndarray) -> np.ndarray:
        return bfloat16(values) if self.precision == "bfloat16" else np.asarray(values).astype(self.item)

    def put(self, values: np.ndarray, dtype: np.dtype | None = None):
        """On the device as items, or as `dtype`."""
        return self.backend.asarray(self.items(values) if dtype is None else np.asarray(values).astype(dtype))

    def buffer(self, *shape: int, dtype: np.dtype | None = None):
        """Full of NaN: whatever is not written shows."""
        return self.put(np.full(shape, np.nan), dtype)

    def get(self, array) -> np.ndarray:
        return from_item(self.backend.to_host(array))

    def close(self, got, expected: np.ndarray) -> None:
        """`got` lies within rounding of `expected`, measured by its largest value; wider where it holds 16 bits."""
        relative, absolute = tolerance("op", self.real)
        if got.dtype != self.real:
            relative += ROUNDING[self.precision]
        np.testing.assert_allclose(
            self.get(got), expected, rtol=0, atol=absolute + relative * np.nanmax(np.abs(expected), initial=0)
        )  # fmt: skip

    def sums(self, n: int, width: int, before: int = 3):
        """Places for the sums of n rows: behind others, both in rows and in columns."""
        return self.cuda.Sums(self.buffer(self.cuda.slots(n) + 2, before + width + 2, dtype=self.real), 1, before)

    def summed(self, sums) -> np.ndarray:
        """The sums of every column, with that of losses and right answers; checks that no other place was written."""
        parts = self.get(sums.parts)
        assert np.isnan(parts[: sums.slot]).all()
        assert np.isnan(parts[-1]).all()
        assert np.isnan(parts[:, : sums.column]).all()
        return parts[sums.slot : -1, sums.column :].sum(axis=0)

    def delta(self, n: int, width: int, values: np.ndarray | None = None):
        from fastmlp.backends.cupy_ops import Delta

        return Delta(self.buffer(n, width) if values is None else self.put(values), self.sums(n, width))

    def close_sums(self, delta) -> None:
        """The delta's sums are those of what it holds."""
        columns = self.get(delta.values)
        got, want = self.summed(delta.sums)[:-2], columns.sum(axis=0)
        np.testing.assert_allclose(
            got, want, rtol=0, atol=tolerance("op", self.real)[0] * np.abs(columns).sum(axis=0).max()
        )

    @widths
    @pytest.mark.parametrize("labels", ["codes", "targets"])
    @pytest.mark.parametrize("kind", ["uint8", "real"])
    def test_rows_are_picked(self, kind, labels, width):
        X = self.random.integers(0, 256, (50, width)).astype("u1") if kind == "uint8" else self.normal(50, width)
        y = self.random.integers(0, 9, 50).astype("i4") if labels == "codes" else self.random.standard_normal((50, 2))
        index = self.random.permutation(50)[:37]
        x, dtype = self.buffer(37, width), np.dtype("i4") if labels == "codes" else self.real
        to_y = self.put(np.zeros(y[:37].shape), dtype)
        given = self.put(X, np.dtype("u1") if kind == "uint8" else self.real), self.put(y, dtype)
        self.cuda.gather(*given, self.put(index, np.int32), x, to_y, self.real)
        np.testing.assert_array_equal(self.get(x), X[index])  # 0 .. 255 are exact in every type
        np.testing.assert_array_equal(self.backend.to_host(to_y), y[index].astype(dtype))

    def test_a_step_takes_what_is_its_own(self):
        cuda, steps, batch, n = self.cuda, 4, 30, 107
        order, weights = self.random.permutation(n), self.random.random(n)
        table, keys = self.random.random((steps, cuda.NUMBERS)), np.arange(steps) + 2**40
        epoch = cuda.Epoch(
            self.put(order, np.int32), self.put(weights, self.real), self.put(table, self.real),
            self.put(keys, np.uint64), self.put([0], np.int32), batch,
        )  # fmt: skip
        now = cuda.Now(*(self.put(np.zeros(size), dtype) for size, dtype in (
            (batch, np.int32), (batch, self.real), (cuda.NUMBERS, self.real), (1, np.uint64)
        )))  # fmt: skip
        for step in range(steps):
            rows = slice(step * batch, min((step + 1) * batch, n))
            count = rows.stop - rows.start
            cuda.begin(epoch, count, now)
            for got, want in zip(now, (order[rows], weights[rows], table[step], keys[step]), strict=True):
                host = self.backend.to_host(got)
                np.testing.assert_array_equal(host[:count] if len(host) == batch else host, np.array(want, host.dtype))
            assert int(epoch.step[0]) == step + 1

    @widths
    @row_counts
    @pytest.mark.parametrize("relu", [False, True])
    def test_affine(self, relu, n, width):
        x, W, b = self.normal(n, 20), self.normal(20, width), self.normal(width)
        out = self.buffer(n, width)
        self.ops.affine(self.put(x), self.put(W), self.put(b, self.real), out, relu)
        z = x @ W + b
        if out.dtype != self.real:  # the product is kept in 16 bits before b is added
            z = from_item(self.items(x @ W)) + b
        self.close(out, np.maximum(z, 0) if relu else z)

    def test_affine_of_pixels_and_of_the_last_layer(self):
        from fastmlp.backends.cupy_ops import Pixels

        x, W, b = self.random.integers(0, 256, (40, 20)), self.normal(20, 3), self.normal(3)
        out = self.buffer(40, 3, dtype=self.real)
        self.ops.affine(Pixels(self.put(x)), self.put(W), self.put(b, self.real), out, False)
        self.close(out, x / 255 @ W + b)

    def test_affine_lets_nan_pass_through_relu(self):
        x = self.normal(5, 4)
        x[2, 1] = np.nan
        out = self.buffer(5, 3)
        self.ops.affine(self.put(x), self.put(self.normal(4, 3)), self.put(self.normal(3), self.real), out, True)
        assert np.isnan(self.get(out)).all(axis=1).tolist() == [False, False, True, False, False]

    @pytest.mark.parametrize("name", activations.ACTIVATIONS)
    def test_activations(self, name):
        z, kind = 3 * self.normal(70, 37), activations.kind_of(name)
        a = self.buffer(70, 37)
        self.ops.activate(kind, self.put(z), a)
        self.close(a, activations.KINDS[kind].f(z))
        in_place = self.put(z)
        self.ops.activate(kind, in_place, in_place)
        np.testing.assert_array_equal(self.get(in_place), self.get(a))

    @pytest.mark.parametrize("name", activations.ACTIVATIONS)
    @row_counts
    def test_backprop(self, n, name):
        kind = activations.kind_of(name)
        dz, W, z = self.normal(n, 5), self.normal(37, 5), self.normal(n, 37)
        a = from_item(self.items(activations.KINDS[kind].f(z)))
        out = self.delta(n, 37)
        self.ops.backprop(kind, self.delta(n, 5, dz), self.put(W), self.put(z), self.put(a), out)
        product = from_item(self.items(dz @ W.T))  # kept in the item's type before the slope
        self.close(out.values, product * activations.KINDS[kind].slope(z, a))
        self.close_sums(out)

    @widths
    @row_counts
    def test_backprop_relu(self, n, width):
        dz, W, a = self.normal(n, 20), self.normal(width, 20), self.normal(n, width)
        a[self.random.random(a.shape) < 0.3] = 0
        out = self.delta(n, width)
        self.ops.backprop_relu(self.delta(n, 20, dz), self.put(W), self.put(a), out)
        self.close(out.values, (dz @ W.T) * (a > 0))
        self.close_sums(out)

    def test_dropout_leaves_out_what_it_does_elsewhere(self):
        from fastmlp.backends.cupy_ops import StepKey

        a, share, key, layer, first = self.normal(70, 37), 0.3, dropout.step_key(5, 11), 2, 9
        want = np.empty((70, 37))
        HOST.dropout(a, share, key + np.uint64(layer), first, want)
        out, at = self.buffer(70, 37), StepKey(self.put([key], np.uint64)) + np.uint64(layer)
        self.ops.dropout(self.put(a), share, at, first, out)
        self.close(out, want)
        delta = self.delta(70, 37, a)
        self.ops.dropout(delta, share, at, first, delta)
        np.testing.assert_array_equal(self.get(delta.values), self.get(out))
        self.close_sums(delta)

    def cross_entropy(self, z, y, numbers=(0.0, 0.0, 0.0), weight=None, in_place=False):
        """dz, the sum of losses, the right answers."""
        n, O = z.shape
        z, given = self.put(z, self.real), None if weight is None else self.put(weight, self.real)
        from fastmlp.backends.cupy_ops import Delta

        dz = Delta(z, self.sums(n, O)) if in_place else self.delta(n, O)
        self.ops.softmax_cross_entropy(z, self.put(y, np.int32), 1.0, dz, None, given, numbers)
        self.close_sums(dz)
        return dz.values, *self.summed(dz.sums)[-2:]

    @widths
    @row_counts
    @pytest.mark.parametrize("in_place", [False, True])
    def test_softmax_cross_entropy(self, in_place, n, width):
        if in_place and self.item != self.real:
            in_place = False  # logits and dz are of different types
        z, y = 4 * self.normal(n, width), self.random.integers(0, width, n)
        got, loss, right = self.cross_entropy(z, y, in_place=in_place)
        want, totals = np.empty_like(z), np.zeros(2)
        HOST.softmax_cross_entropy(z, y, 1.0, want, totals)
        self.close(got, want)
        assert loss == pytest.approx(totals[0], rel=tolerance("op", self.real)[0])
        assert right == totals[1]

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize(
        "numbers", [(0.0, 0.0, 0.0), (0.1, 0.0, 0.0), (0.0, 2.0, 0.0), (0.0, 0.5, 0.0), (0.0, 0.0, 3.0)], ids=str
    )
    def test_smoothing_focus_and_weights(self, numbers, weighted):
        z, y = 4 * self.normal(77, 12), self.random.integers(0, 12, 77)
        weight = self.random.random(77) if weighted else None
        got, loss, right = self.cross_entropy(z, y, numbers, weight)
        want, totals = np.empty_like(z), np.zeros(2)
        HOST.softmax_cross_entropy(z, y, 1.0, want, totals, weight, numbers)
        self.close(got, want)
        assert loss == pytest.approx(totals[0], rel=tolerance("op", self.real)[0])
        assert right == totals[1]

    @widths
    def test_of_equal_logits_the_first_is_the_answer(self, width):
        z = np.zeros((width, width))  # row k: the largest stand at k and at every place behind it
        z[np.triu_indices(width)] = 1
        assert self.cross_entropy(z, np.arange(width))[2] == width
        assert self.cross_entropy(z, (np.arange(width) + 1) % width)[2] == (width == 1)

    def test_softmax_of_far_logits_stays_finite(self):
        z = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4]])
        dz, loss, _ = self.cross_entropy(z, np.array([1, 2]))
        self.close(dz, np.array([[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]]))
        assert loss == pytest.approx(1e4 + np.log(3))

    @pytest.mark.parametrize("place", [0, 5, 39])
    def test_nan_logit_shows_in_loss_and_in_its_row(self, place):
        z = self.normal(3, 40)
        z[1, place] = np.nan
        dz = self.delta(3, 40)
        self.ops.softmax_cross_entropy(
            self.put(z, self.real), self.put([0, 0, 0], np.int32), 1.0, dz, None, None, (0, 0, 0)
        )
        assert np.isnan(self.summed(dz.sums)[-2])
        assert np.isnan(self.get(dz.values)).all(axis=1).tolist() == [False, True, False]

    @pytest.mark.parametrize("weighted", [False, True])
    @pytest.mark.parametrize("name", losses.ELEMENTWISE)
    def test_elementwise_loss(self, name, weighted):
        n, O, kind = 77, 35, losses.kind_of(name)
        z, y = self.normal(n, O), np.abs(self.normal(n, O))
        y[::5] = z[::5]  # no distance
        y[:, 0] = 0  # no count, for the logarithm
        y = np.minimum(y, 1) if name == "logistic" else np.abs(y)
        numbers = self.random.random(O)
        weight = self.random.random(n) if weighted else None
        dz = self.delta(n, O)
        given = None if weight is None else self.put(weight, self.real)
        z, y = z.astype(self.real).astype(float), y.astype(self.real).astype(float)
        self.ops.elementwise_loss(
            kind, self.put(z, self.real), self.put(y, self.real), 0.5, dz, None, given, self.put(numbers, self.real)
        )
        want, totals = np.empty((n, O)), np.zeros(2)
        HOST.elementwise_loss(kind, z, y, 0.5, want, totals, weight, numbers)
        self.close(dz.values, want)
        self.close_sums(dz)
        loss, right = self.summed(dz.sums)[-2:]
        assert loss == pytest.approx(totals[0], rel=10 * tolerance("op", self.real)[0])
        assert right == totals[1]

    @pytest.mark.parametrize("add", [False, True])
    @row_counts
    def test_weight_gradient(self, n, add):
        a, dz, before = self.normal(n, 6), self.normal(n, 37), self.normal(6, 37)
        dW, self.ops.share = self.put(before if add else np.full((6, 37), np.nan), self.real), 0.25
        self.ops.weight_gradient(self.put(a), self.delta(n, 37, dz), dW, None, add)
        self.close(dW, (before if add else 0) + a.T @ dz / 4)

    @pytest.mark.parametrize("gradient", [True, False])
    @pytest.mark.parametrize("K", [1, 7, 100])
    def test_finish(self, K, gradient):
        parts, where = self.normal(K, 45), self.random.permutation(60)[:43]
        g, totals = self.put(np.zeros(60), self.real), self.put([1.0, 2.0, 3.0], np.float64)
        self.cuda.finish(
            self.put(parts, self.real), self.put(where, np.int32), 0.5, g, totals, self.item, gradient=gradient
        )
        want = np.zeros(60)
        if gradient:
            want[where] = parts[:, :-2].sum(axis=0) / 2
        self.close(g, want)
        np.testing.assert_allclose(self.get(totals), [*(parts[:, -2:].sum(axis=0) + np.array([1, 2])), 3], rtol=1e-12)

    @pytest.mark.parametrize("weights", [True, False])
    def test_squares_and_penalty(self, weights):
        v, ends = self.normal(1000), [600, 700, 950, 1000]
        lengths, totals = self.buffer(self.cuda.LENGTHS, dtype=self.real), self.put([0, 0, 1], np.float64)
        self.cuda.squares(self.put(v, self.real), self.put(ends, np.int64), lengths, self.item, weights=weights)
        numbers = self.put([7, 0.25, 7, 7, 7, 7, 7, 7], self.real)
        self.cuda.add_penalty(lengths, numbers, 10, totals, self.item)
        counted = np.concatenate([v[:600], v[700:950]]) if weights else v
        assert self.get(totals)[2] == pytest.approx(
            1 + 10 / 2 * 0.25 * (counted**2).sum(), rel=tolerance("op", self.real)[0]
        )

    @pytest.mark.parametrize("held", [False, True])
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_update_follows_the_rule(self, name, held):
        (rule, states, rate), P = OPTIMIZERS[name], 1000
        settings, ends, longest = Settings(weight_decay=0.02), [600, 700, 950, 1000], 3.0 if held else 0.0
        w, s = self.normal(P), np.zeros((states, P))
        device_w, device_s, copy = self.put(w, self.real), self.put(s, self.real), self.buffer(P)
        copy = device_w if self.item == self.real else copy
        lengths, ends_there = self.buffer(self.cuda.LENGTHS, dtype=self.real), self.put(ends, np.int64)
        bias = (np.searchsorted(ends, np.arange(P), side="right") % 2).astype(bool)
        for t in (1, 2, 3):
            g = self.normal(P)
            g[1::7] = 0  # a unit that never fires: Adam must not divide by zero
            h = step_scalars(rule, rate, settings, t, np.dtype(float), 0.01)
            device_g = self.put(g, self.real)
            self.cuda.squares(device_g, ends_there, lengths, self.item, weights=False)
            self.cuda.update(
                name, device_w, device_g, device_s, copy, self.put(h, self.real), ends_there, held, lengths, longest
            )
            g *= min(1, 3 / np.linalg.norm(g)) if held else 1
            for part in (bias, ~bias):
                numbers = h if held and part is not bias else h._replace(l2=0, shrink=0)
                moved, state = w[part], s[:, part]
                rule(moved, g[part], state, slice(None), numbers)
                w[part], s[:, part] = moved, state
        self.close(device_w, w)
        np.testing.assert_array_equal(self.get(copy), from_item(self.items(self.backend.to_host(device_w))))
        if states:
            self.close(device_s, s)

    @pytest.mark.parametrize(("H", "O"), [(160, 10), (33, 26)])
    @pytest.mark.parametrize(("n", "slots"), [(1, 9), (32, 9), (333, 9), (333, 2)])
    def test_middle_is_the_two_layers_and_the_loss(self, H, O, n, slots, monkeypatch):
        if not self.cuda.middle_fits(H, O, self.real):
            pytest.skip(f"{H}-{O} in {self.real} does not fit into shared memory")
        monkeypatch.setattr(self.cuda.sums, "MOST_SLOTS", slots)  # a block then takes several tiles
        z, b1, W2, b2 = self.normal(n, H), self.normal(H), self.normal(H, O), self.normal(O)
        y = self.random.integers(0, O, n)
        z1, sums = self.put(z), self.sums(n, H * O + O + H)
        self.cuda.middle(z1, *(self.put(array, self.real) for array in (b1, W2, b2)), self.put(y, np.int32), sums)
        a = np.maximum(z + b1, 0)
        z2 = a @ W2 + b2
        e = np.exp(z2 - z2.max(axis=1, keepdims=True))
        dz2 = e / e.sum(axis=1, keepdims=True) - np.eye(O)[y]
        dz1 = (dz2 @ W2.T) * (a > 0)
        self.close(z1, dz1)
        got = self.summed(sums)
        for part, want in zip(
            np.split(got, [H * O, H * O + O, H * O + O + H]),
            ((a.T @ dz2).ravel(), dz2.sum(axis=0), self.get(z1).sum(axis=0)), strict=False,
        ):  # fmt: skip
            np.testing.assert_allclose(
                part, want, rtol=0, atol=50 * tolerance("op", self.real)[1] * max(1, np.abs(want).max())
            )
        loss = -np.log(e[np.arange(n), y] / e.sum(axis=1)).sum()
        np.testing.assert_allclose(got[-2:], [loss, (z2.argmax(axis=1) == y).sum()], rtol=1e-5, atol=1e-5)


class TestEmulated(OpTests):
    """On the CPU, each launch with another order of threads."""

    @pytest.fixture
    def backend(self, emulated):
        return emulated

    def test_kernels_refuse_what_they_would_misread(self):
        import cupy

        cuda, z, b = self.cuda, cupy.zeros((4, 6), self.item), cupy.zeros(6, self.real)
        with pytest.raises(ValueError, match="strided"):
            cuda.add_bias(z[:, :3], b[:3], 0)
        with pytest.raises(ValueError, match=r"shape \(6,\), got C-ordered float\d+ \(3,\)"):
            cuda.add_bias(z, b[:3], 0)
        with pytest.raises(ValueError, match="NumPy array"):
            cuda.add_bias(z, np.zeros(6, self.real), 0)
        with pytest.raises(ValueError, match="int32 array"):
            cuda.gather(z, cupy.zeros(4, np.int32), cupy.zeros(4, np.int64), z, cupy.zeros(4, np.int32), self.item)
        with pytest.raises(ValueError, match="room for 1 shares of 6 sums"):
            cuda.delta(z, 0, z, z, cuda.Sums(cupy.zeros((1, 7), self.real), 0, 2))
        with pytest.raises(ValueError, match="shapes that fit"):
            self.plan.products.multiply(False, False, z, z, z)
