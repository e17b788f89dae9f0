"""The tensor-core kernels on a real GPU: the same nets, with all its multiprocessors."""

from __future__ import annotations

import numpy as np
import pytest
from fastmlp.kernels.cuda import tensor, tensor_tiles
from tensor_cases import CASES, REFERENCE, answer, close, problem, step

from fastmlp.backends import load

pytestmark = pytest.mark.gpu
REAL = [(REFERENCE, 2048), (REFERENCE, 128), ((784, 256, 16), 1000), *(case[:2] for case in CASES)]


@pytest.fixture
def cupy():
    """CuPy, on a card that has these kernels."""
    load("cupy")
    import cupy

    if reason := tensor_tiles.unsupported(REFERENCE, tensor.card()):
        pytest.skip(reason)
    return cupy


@pytest.mark.parametrize(("sizes", "n"), REAL, ids=str)
@pytest.mark.parametrize("weight", [False, True])
def test_step(sizes, n, weight, cupy):
    case = problem(sizes, n)
    got = step(case, tensor.card(), weight=weight, cupy=cupy)
    assert close(case, got, answer(case, weight=weight))
    again = step(case, tensor.card(), weight=weight, cupy=cupy)
    assert all(one.tobytes() == other.tobytes() for one, other in zip(got, again, strict=True))


def test_without_an_index(cupy):
    case = problem(REFERENCE, 1000)
    assert close(case, step(case, tensor.card(), index=False, cupy=cupy), answer(case, index=False))


def test_too_large_for_float16_is_no_finite_loss(cupy):
    case = problem(REFERENCE, 1000)
    case.W[0][300:310, 5] = 1e6
    assert not np.isfinite(step(case, tensor.card(), cupy=cupy).totals[0])
