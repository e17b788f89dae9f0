"""Rows, layers and products of the CuPy backend against the plain rules in float64, with the kernels run on the CPU.

`LayerTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_hands import HOST, Emulated, Hands, from_item, row_counts, widths
from tolerance import tolerance

from fastmlp import activations, dropout

float16 = pytest.mark.parametrize("hands", ["float16"], indirect=True)


class LayerTests(Hands):
    """The operations of layers, given the fixture `backend`."""

    @widths
    @pytest.mark.parametrize("labels", ["codes", "targets"])
    @pytest.mark.parametrize("kind", ["uint8", "real"])
    def test_rows_are_picked(self, kind, labels, width):
        X = self.random.integers(0, 256, (50, width)).astype("u1") if kind == "uint8" else self.normal(50, width)
        y = self.random.integers(0, 9, 50).astype("i4") if labels == "codes" else self.random.standard_normal((50, 2))
        order, weights = self.random.permutation(50), self.random.random(50)
        x, dtype = self.buffer(37, width), np.dtype("i4") if labels == "codes" else self.real
        to_y, to_weight = self.put(np.zeros(y[:37].shape), dtype), self.buffer(37, dtype=self.real)
        given = self.put(X, np.dtype("u1") if kind == "uint8" else self.real), self.put(y, dtype)
        for ordered in (True, False):
            epoch = self.epoch(order=order if ordered else None, weights=weights, turn=(0, 4))._replace(visit=3)
            self.cuda.gather(*given, epoch, x, to_y, to_weight, first=2)
            visits = np.arange(9, 46)
            rows = order[visits] if ordered else visits
            np.testing.assert_array_equal(self.get(x), X[rows])  # 0 .. 255 are exact in every type
            np.testing.assert_array_equal(self.backend.to_host(to_y), y[rows].astype(dtype))
            np.testing.assert_array_equal(self.backend.to_host(to_weight), weights[visits].astype(self.real))
        self.cuda.gather(*given, epoch, x, to_y, placed=True)
        np.testing.assert_array_equal(self.get(x), X[:37])
        np.testing.assert_array_equal(self.backend.to_host(to_y), y[7:44].astype(dtype))

    def test_turn_goes_on(self):
        epoch = self.epoch(turn=(3, 100))
        for _ in range(2):
            self.cuda.go_on(epoch, 5, -7)
        np.testing.assert_array_equal(self.backend.to_host(epoch.turn), [13, 86])

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
        epoch = self.epoch(key=dropout.step_key(5, 4), turn=(2, 0))._replace(step=5)
        out, at = self.buffer(70, 37), StepKey(epoch) + np.uint64(layer)
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

    def need_tensor_cores(self, monkeypatch):
        monkeypatch.setattr(self.cuda.fused, "FEWEST_ROWS", 1)
        if not self.cuda.fused.on_tensor_cores(1, 1, 1, self.item):
            pytest.skip("this card's tensor cores are too old")

    def middle(self, H, O, n, tensor, monkeypatch):
        """[z, the sums behind it] of `middle`, by tensor cores or not, [what they should be], and how large their
        terms are: sums may cancel."""
        monkeypatch.setattr(self.cuda.fused, "FEWEST_ROWS", 1 if tensor else 10**6)
        assert self.cuda.fused.on_tensor_cores(n, H, O, self.item) == tensor
        z, b, V, c = self.normal(n, H), self.normal(H), self.normal(H, O), self.normal(O)
        if tensor:  # hidden units are rounded: weights as a net has them, which do not make large logits of that
            V = from_item(self.items(V * np.sqrt(2 / H)))
        y = self.random.integers(0, O, n)
        got_z, sums = self.put(z), self.sums(n, H * O + H + O)
        self.cuda.middle(got_z, *(self.put(array, self.real) for array in (b, V, c)), self.put(y, np.int32), sums)
        a = np.maximum(z + b, 0)
        logits = a @ V + c
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        d = e / e.sum(axis=1, keepdims=True) - np.eye(O)[y]
        dz = (d @ V.T) * (a > 0)
        loss = -np.log(e[np.arange(n), y] / e.sum(axis=1)).sum()
        totals = [loss, (logits.argmax(axis=1) == y).sum()]
        got = np.split(self.summed(sums), [H * O, H * O + H, H * O + H + O])
        size = [np.sqrt(((a**2).T @ d**2).T.ravel()), np.sqrt((dz**2).sum(axis=0)), np.sqrt((d**2).sum(axis=0))]
        return (got_z, *got), (dz, (a.T @ d).T.ravel(), dz.sum(axis=0), d.sum(axis=0), totals), size

    @pytest.mark.parametrize(("H", "O"), [(160, 10), (33, 26), (512, 10), (1, 1)])
    @pytest.mark.parametrize(
        ("n", "slots", "tiles"), [(1, 9, 9), (8, 9, 9), (77, 9, 9), (77, 2, 9), (77, 9, 1), (77, 2, 1)]
    )
    def test_middle_is_the_two_layers_and_the_loss(self, H, O, n, slots, tiles, monkeypatch):
        monkeypatch.setattr(self.cuda.sums, "MOST_SLOTS", slots)  # a block may then take several tiles
        monkeypatch.setattr(self.cuda.sums, "MANY_TILES", tiles)  # of 8 or 16 rows
        if not self.cuda.middle_fits(H, O, self.real):
            pytest.skip(f"{H}-{O} in {self.real} does not fit into a block")
        (z, *got), (dz, dV, _, dc, totals), _ = self.middle(H, O, n, False, monkeypatch)
        self.close(z, dz)
        for part, want in zip(got[:3], (dV, self.get(z).sum(axis=0), dc), strict=True):
            np.testing.assert_allclose(
                part, want, rtol=0, atol=50 * tolerance("op", self.real)[1] * max(1, np.abs(want).max())
            )
        np.testing.assert_allclose(got[3], totals, rtol=1e-5, atol=1e-5)

    @float16
    @pytest.mark.parametrize("slots", [1, 2, 512])
    @pytest.mark.parametrize("n", [1, 15, 16, 17, 333])
    @pytest.mark.parametrize(("H", "O"), [(1, 1), (7, 2), (17, 16), (34, 8), (100, 3), (160, 10), (250, 9), (256, 16)])
    def test_middle_on_tensor_cores(self, H, O, n, slots, monkeypatch):
        self.need_tensor_cores(monkeypatch)
        monkeypatch.setattr(self.cuda.sums, "MOST_SLOTS", slots)
        (z, *got), (dz, *want), size = self.middle(H, O, n, True, monkeypatch)
        relative = tolerance("half", self.real)[0]
        for part, right, terms in zip((self.get(z), *got), (dz, *want[:3]), (dz, *size), strict=False):
            scale = max(np.linalg.norm(right), np.linalg.norm(terms))
            assert np.linalg.norm(part - right) <= relative * scale
        np.testing.assert_allclose(got[3][0], want[3][0], rtol=relative, atol=relative * n)
        assert abs(got[3][1] - want[3][1]) <= n // 100  # logits may be as good as equal

    @float16
    def test_middle_on_tensor_cores_gives_the_same_bits_each_time(self, monkeypatch):
        self.need_tensor_cores(monkeypatch)
        monkeypatch.setattr(self.cuda.sums, "MOST_SLOTS", 3)
        results = []
        for _ in range(2):
            self.random = np.random.default_rng(7)
            z, *got = self.middle(100, 10, 200, True, monkeypatch)[0]
            results.append([self.get(z).tobytes(), *(part.tobytes() for part in got)])
        assert results[0] == results[1]

    @float16
    def test_too_large_for_float16_is_no_finite_loss(self, monkeypatch):
        """A hidden unit beyond 65504 is infinite for tensor cores; so is a weight."""
        self.need_tensor_cores(monkeypatch)
        for large in ("hidden unit", "weight"):
            z, V, sums = self.normal(20, 5), -np.abs(self.normal(5, 3)), self.sums(20, 5 * 3 + 5 + 3)
            b = np.full(5, 6e4 if large == "hidden unit" else 1.0)
            z[11, 2], V[2, 1] = (6e4, V[2, 1]) if large == "hidden unit" else (1.0, 1e5)
            b, V, c = (self.put(array, self.real) for array in (b, V, np.zeros(3)))
            self.cuda.middle(self.put(z), b, V, c, self.put(np.zeros(20), np.int32), sums)
            assert not np.isfinite(self.summed(sums)[-2])

    @pytest.mark.parametrize("tensor", [False, True])
    def test_middle_lets_nan_pass_to_the_loss(self, tensor, monkeypatch):
        monkeypatch.setattr(self.cuda.fused, "FEWEST_ROWS", 1 if tensor else 10**6)
        z, sums = self.normal(20, 5), self.sums(20, 5 * 3 + 5 + 3)
        z[11, 2] = np.nan
        b, V, c = (self.put(self.normal(*shape), self.real) for shape in ((5,), (5, 3), (3,)))
        z = self.put(z)
        self.cuda.middle(z, b, V, c, self.put(np.zeros(20), np.int32), sums)
        assert np.isnan(self.get(z)).any(axis=1).nonzero()[0].tolist() == [11]
        assert np.isnan(self.summed(sums)[-2])


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
            cuda.gather(z, None, self.epoch()._replace(turn=cupy.zeros(2, np.int64)), z)
        with pytest.raises(ValueError, match="room for 1 shares of 6 sums"):
            cuda.delta(z, 0, z, z, cuda.Sums(cupy.zeros((1, 7), self.real), 0, 2))
        with pytest.raises(ValueError, match="shapes that fit"):
            self.plan.products.multiply(False, False, z, z, z)
