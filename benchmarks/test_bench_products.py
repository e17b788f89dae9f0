"""The two large matrix products of 784-160-10: nearly all the arithmetic of an epoch.

Their operands are dense, unlike images, so that no backend may skip zeros.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from benchmarks.bench_reference import H, I, assert_close
from benchmarks.conftest import with_operations


class Operands(NamedTuple):
    """Random float32 operands, and in float64 what the products must give."""

    x: np.ndarray  # (N, I)
    W: np.ndarray  # (I, H)
    b: np.ndarray  # (H,)
    dz: np.ndarray  # (N, H)
    a: np.ndarray  # (N, H) relu(x W + b)
    dW: np.ndarray  # (I, H) x^T dz
    db: np.ndarray  # (H,)


@pytest.fixture(scope="module")
def operands(n):
    rng = np.random.default_rng(2)
    x, W, b, dz = (rng.random(shape, np.float32) - 0.5 for shape in ((n, I), (I, H), (H,), (n, H)))
    exact = x.astype(np.float64)
    return Operands(x, W, b, dz, np.maximum(exact @ W + b, 0), exact.T @ dz, dz.sum(0, np.float64))


@with_operations
def test_forward(measure, backend, operands, n):
    """ops.affine with ReLU: (N, I)(I, H) -> (N, H)."""
    x, W, b = map(backend.asarray, operands[:3])
    out = backend.zeros((n, H), x.dtype)

    def run():
        backend.ops.affine(x, W, b, out, True)
        backend.to_host(out[:1])  # waits

    def check(_):
        assert_close(backend.to_host(out), operands.a, 1e-5)

    measure(f"forward ({n},{I})({I},{H})", backend, run, check, gflop=2e-9 * n * I * H, alone=True)


@with_operations
def test_weight_gradient(measure, backend, operands, n):
    """ops.weight_gradient: (I, N)(N, H) -> (I, H), and the column sums."""
    x, dz = backend.asarray(operands.x), backend.asarray(operands.dz)
    dW, db = backend.zeros((I, H), x.dtype), backend.zeros(H, x.dtype)

    def run():
        backend.ops.weight_gradient(x, dz, dW, db, False)
        backend.to_host(db)  # waits

    def check(_):
        assert_close(backend.to_host(dW), operands.dW, 1e-5)
        assert_close(backend.to_host(db), operands.db, 1e-5)

    measure(f"weight gradient ({I},{n})({n},{H})", backend, run, check, gflop=2e-9 * n * I * H, alone=True)
