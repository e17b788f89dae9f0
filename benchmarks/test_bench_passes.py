"""The passes between the products, fused against unfused: what they cost is memory traffic.

GB/s counts every array once, read or written: temporaries and second readings lower the rate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.bench_reference import H, O, assert_close, softmax_and_losses
from benchmarks.conftest import with_operations
from fastmlp.backends import load


class Operands(NamedTuple):
    """Random float32 operands of backprop_relu, and in float64 what it must give."""

    dz: np.ndarray  # (N, O)
    W: np.ndarray  # (H, O)
    a: np.ndarray  # (N, H), half of it 0
    out: np.ndarray  # (N, H) (dz W^T) * (a > 0)


@pytest.fixture(scope="module")
def operands(n):
    rng = np.random.default_rng(3)
    dz, W, z = (rng.random(shape, np.float32) - 0.5 for shape in ((n, O), (H, O), (n, H)))
    a = np.maximum(z, 0)
    return Operands(dz, W, a, np.where(a > 0, dz.astype(np.float64) @ W.T, 0))


def backprop(n):
    """Group and memory of (dz W^T) * (a > 0): dz and a read, the result written."""
    return f"backprop_relu ({n},{O})({O},{H}) * mask", 4e-9 * n * (O + 2 * H)


def test_unfused(measure, operands, n):
    """As one writes it in NumPy: a temporary for the product, one for the mask."""
    dz, W, a, exact = operands
    group, gbyte = backprop(n)

    def check(out):
        assert_close(out, exact, 1e-6)

    measure(group, load("numpy"), lambda: (dz @ W.T) * (a > 0), check, gbyte=gbyte, alone=True)


@with_operations
def test_backprop_relu(measure, backend, operands, n):
    """ops.backprop_relu, into a buffer made before."""
    dz, W, a = map(backend.asarray, operands[:3])
    out = backend.zeros((n, H), a.dtype)
    group, gbyte = backprop(n)

    def run():
        backend.ops.backprop_relu(dz, W, a, out)
        backend.to_host(out[:1])  # waits

    def check(_):
        assert_close(backend.to_host(out), operands.out, 1e-6)

    measure(group, backend, run, check, gbyte=gbyte, alone=True)


@with_operations
def test_softmax_cross_entropy(measure, backend, n):
    """ops.softmax_cross_entropy: loss, right answers and dz in one visit to a row."""
    rng = np.random.default_rng(4)
    host = rng.standard_normal((n, O)).astype(np.float32)
    labels = rng.integers(O, size=n, dtype=np.int32)
    z, y = backend.asarray(host), backend.asarray(labels)
    dz, totals = backend.zeros((n, O), z.dtype), backend.zeros(2, np.dtype(np.float64))

    def clear():
        totals[:] = 0

    def run():
        backend.ops.softmax_cross_entropy(z, y, 1 / n, dz, totals)
        return backend.to_host(totals)  # waits

    def check(found):
        p, losses = softmax_and_losses(host.astype(np.float64), labels)
        assert_close(backend.to_host(dz), (p - np.eye(O)[labels]) / n, 1e-5)
        assert abs(found[0] / losses.sum() - 1) <= 1e-6
        assert found[1] == (host.argmax(axis=1) == labels).sum()

    measure(f"softmax with cross entropy ({n},{O})", backend, run, check, setup=clear, gbyte=4e-9 * n * (2 * O + 1))
