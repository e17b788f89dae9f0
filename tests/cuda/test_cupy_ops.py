"""Rows, layers and products of the CuPy backend against the plain rules in float64, with the kernels run on the CPU.

`LayerTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_hands import HOST, Emulated, Hands, from_item, row_counts, widths
from tolerance import tolerance

from fastmlp import activations, dropout


class LayerTests(Hands):
    """The operations of layers, given the fixture `backend`."""

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

    @pytest.mark.parametrize("add", [False, True])
    @row_counts
    def test_weight_gradient(self, n, add):
        a, dz, before = self.normal(n, 6), self.normal(n, 37), self.normal(6, 37)
        dW, self.ops.share = self.put(before if add else np.full((6, 37), np.nan), self.real), 0.25
        self.ops.weight_gradient(self.put(a), self.delta(n, 37, dz), dW, None, add)
        self.close(dW, (before if add else 0) + a.T @ dz / 4)

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


class TestEmulated(Emulated, LayerTests):
    """On the CPU, each launch with another order of threads."""

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
