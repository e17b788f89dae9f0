"""What the tests of single CUDA operations share: arrays at every precision, and what they are compared with."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import tolerance

from fastmlp.backends.base import Ops
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.network import Network

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


class Hands:
    """What the tests of operations work with, given the fixture `backend`."""

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

    def epoch(self, steps: int = 1, *, order=None, weights=None, table=None, key: int = 0, turn=(0, 0)):
        """An epoch of so many steps, of which and of whose rows `turn` are behind us."""
        real, table = self.real, np.zeros((steps, self.cuda.NUMBERS)) if table is None else table
        return self.cuda.Epoch(
            self.put(turn, np.int32), None if order is None else self.put(order, np.int32),
            None if weights is None else self.put(weights, real), self.put(table, real),
            self.put(np.zeros((steps, self.cuda.TOTALS)), np.float64), self.put([key], np.uint64),
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


class Emulated:
    """The backend of such tests on the CPU."""

    @pytest.fixture
    def backend(self, emulated):
        return emulated
