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
        g, epoch = self.put(np.zeros(60), self.real), self.epoch(5, turn=(2, 0))._replace(step=1)
        for _ in range(2):
            self.cuda.finish(
                self.put(parts, self.real), self.put(where, np.int32), 0.5, g, epoch, self.item, gradient=gradient
            )
        want = np.zeros(60)
        if gradient:
            want[where] = parts[:, :-2].sum(axis=0) / 2
        self.close(g, want)
        totals = np.zeros((5, self.cuda.TOTALS))
        totals[3, :2] = 2 * parts[:, -2:].sum(axis=0)
        np.testing.assert_allclose(self.get(epoch.totals), totals, rtol=1e-12)

    @pytest.mark.parametrize("weights", [True, False])
    def test_squares_and_penalty(self, weights):
        v, ends = self.normal(1000), [600, 700, 950, 1000]
        lengths = self.buffer(self.cuda.LENGTHS, dtype=self.real)
        self.cuda.squares(self.put(v, self.real), self.put(ends, np.int64), lengths, self.item, weights=weights)
        table = [[7] * 8] * 3 + [[7, 0.25, 7, 7, 7, 7, 7, 7]]
        epoch = self.epoch(4, table=table, turn=(2, 0))._replace(step=1)
        for _ in range(2):
            self.cuda.add_penalty(lengths, epoch, 10, self.item)
        counted = np.concatenate([v[:600], v[700:950]]) if weights else v
        totals = np.zeros((4, self.cuda.TOTALS))
        totals[3, 2] = 2 * 10 / 2 * 0.25 * (counted**2).sum()
        np.testing.assert_allclose(self.get(epoch.totals), totals, rtol=tolerance("op", self.real)[0])

    @pytest.mark.parametrize("how", ["sums of all biases", "sums of the last weights too", "clipped"])
    @pytest.mark.parametrize("name", OPTIMIZERS)
    def test_update_follows_the_rule(self, name, how):
        (rule, states, rate), P = OPTIMIZERS[name], 1000
        settings, ends, longest = Settings(weight_decay=0.02), [600, 700, 950, 1000], 3.0
        w, s = self.normal(P), np.zeros((states, P))
        device_w, device_s, copy = self.put(w, self.real), self.put(s, self.real), self.buffer(P)
        copy = device_w if self.item == self.real else copy
        lengths, ends_there = self.buffer(self.cuda.LENGTHS, dtype=self.real), self.put(ends, np.int64)
        bias = (np.searchsorted(ends, np.arange(P), side="right") % 2).astype(bool)
        for t in (1, 2, 3):
            g = self.normal(P)
            g[1::7] = 0  # a unit that never fires: Adam must not divide by zero
            h = step_scalars(rule, rate, settings, t, np.dtype(float), 0.01)
            table = [h._replace(rate=np.nan), h._replace(rate=np.nan), h]
            epoch = self.epoch(3, table=table, turn=(1, 0))._replace(step=1)
            if how == "clipped":
                device_g = self.put(g, self.real)
                self.cuda.squares(device_g, ends_there, lengths, self.item, weights=False)
                self.cuda.update_clipped(
                    name, device_w, device_g, device_s, copy, epoch, ends_there, lengths, longest
                )  # fmt: skip
                g *= min(1, longest / np.linalg.norm(g))
            else:
                end = P if how == "sums of all biases" else 700
                where, rest = np.flatnonzero(bias | (np.arange(P) >= end)), g.copy()
                parts = self.normal(3, len(where) + 2)
                g[where], rest[where] = parts[:, :-2].sum(axis=0) / 2, np.nan
                self.cuda.update(
                    name, device_w, self.put(rest, self.real), device_s, copy, epoch, ends_there,
                    self.put(parts, self.real), self.put(where, np.int32), end, 0.5,
                )  # fmt: skip
                totals = np.zeros((3, self.cuda.TOTALS))
                totals[2, :2] = parts[:, -2:].sum(axis=0)
                np.testing.assert_allclose(self.get(epoch.totals), totals, rtol=1e-6)
            for part in (bias, ~bias):
                numbers = h._replace(l2=0, shrink=0) if part is bias else h
                moved, state = w[part], s[:, part]
                rule(moved, g[part], state, slice(None), numbers)
                w[part], s[:, part] = moved, state
        self.close(device_w, w)
        np.testing.assert_array_equal(self.get(copy), from_item(self.items(self.backend.to_host(device_w))))
        if states:
            self.close(device_s, s)


class TestEmulated(Emulated, UpdateTests):
    """On the CPU, each launch with another order of threads."""
