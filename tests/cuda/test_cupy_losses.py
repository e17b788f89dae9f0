"""Losses of the CuPy backend against the plain rules in float64, with the kernels run on the CPU.

`LossTests` asks for nothing but a backend: test_gpu.py runs the same tests on a GPU.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_hands import HOST, Emulated, Hands, row_counts, widths
from tolerance import tolerance

from fastmlp import losses


class LossTests(Hands):
    """The losses, given the fixture `backend`."""

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


class TestEmulated(Emulated, LossTests):
    """On the CPU, each launch with another order of threads."""
