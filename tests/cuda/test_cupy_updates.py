"""The last sums and the update of the CuPy backend against the plain rules in float64, with the kernels run on the CPU.

`UpdateTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_hands import Emulated, Hands, from_item
from tolerance import tolerance

from fastmlp.optimizers import OPTIMIZERS, Settings, step_scalars


class UpdateTests(Hands):
    """Sums, penalty and update, given the fixture `backend`."""

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


class TestEmulated(Emulated, UpdateTests):
    """On the CPU, each launch with another order of threads."""
