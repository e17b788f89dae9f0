"""Faults put into the kernels on purpose: the emulation must show each of them, or passing there means nothing."""

from __future__ import annotations

import numpy as np
import pytest

N, H = 333, 40


def put_fault(fresh, file: str, right: str, wrong: str) -> None:
    """Replace `right`, which must be there, by `wrong` in a source that is yet to be compiled."""
    from fastmlp.kernels import cuda

    source = cuda.source
    assert right in source(file)
    fresh.setattr(cuda, "source", lambda name: source(name).replace(right, wrong) if name == file else source(name))


def backprop(backend):
    random = np.random.default_rng(1)
    dz, W, a = random.standard_normal((N, 5)), random.standard_normal((H, 5)), random.standard_normal((N, H))
    out = backend.zeros((N, H), np.float64)
    backend.ops.backprop_relu(*(backend.asarray(array) for array in (dz, W, a)), out)
    return backend.to_host(out), (dz @ W.T) * (a > 0)


def gather(backend):
    X, index = np.arange(N * H, dtype=np.float64).reshape(N, H), np.arange(N)[::-1].copy()
    out = backend.zeros((N, H), np.float64)
    backend.ops.rows(backend.asarray(X), backend.asarray(index), out)
    return backend.to_host(out), X[index]


def columns(backend):
    d, db = np.random.default_rng(2).standard_normal((N, H)), backend.zeros(H, np.float64)
    backend.ops.weight_gradient(
        backend.asarray(np.ones((N, 1))), backend.asarray(d), backend.zeros((1, H), np.float64), db, False
    )
    return backend.to_host(db), d.sum(axis=0)


def totals(backend):
    z = np.random.default_rng(3).standard_normal((N, H))
    total, device = backend.zeros(2, np.float64), backend.asarray(z)
    backend.ops.softmax_cross_entropy(device, backend.asarray(np.zeros(N, np.int32)), 1.0, device, total)
    losses = np.log(np.exp(z).sum(axis=1)) - z[:, 0]
    return backend.to_host(total), np.array([losses.sum(), (z.argmax(axis=1) == 0).sum()])


FAULTS = {
    "mask dropped": (backprop, "layer", "d[n * H + h] *= REAL(a[n * H + h] > 0);", ";"),
    "mask by the wrong element": (backprop, "layer", "a[n * H + h] > 0", "a[h] > 0"),
    "rows not picked": (gather, "rows", "(long long)index[n] * I", "n * I"),
    "last rows left out": (gather, "rows", "if (n >= N) return;", "if (n >= N / 8 * 8) return;"),
    "no barrier in column sums": (columns, "layer", "__syncthreads();", ""),
    "no barrier in totals": (totals, "loss", "__syncthreads();", ""),
    "half a warp shuffled": (totals, "loss", "lane = LANES / 2", "lane = LANES / 4"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_shows(fault, cupy, fresh):
    compute, file, right, wrong = FAULTS[fault]
    from fastmlp.backends.cupy import CupyBackend

    got, expected = compute(CupyBackend())
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    put_fault(fresh, file, right, wrong)
    import fastmlp.kernels.cuda as cuda

    cuda.module.cache_clear()
    cuda.kernel.cache_clear()
    got, expected = compute(CupyBackend())
    assert not np.allclose(got, expected, rtol=1e-6)


BARRIER, LEAVE = "    __syncthreads();\n", "    if (threadIdx.y > 0 || h >= H) return;\n"
SLOT = "out + (long long)blockIdx.y * H + h"
REFUSED = {
    "barrier that some threads miss": (BARRIER + LEAVE, LEAVE + BARRIER, "not all threads reach"),
    "slot beyond the end": (SLOT, SLOT + " + 1", "wrote outside argument 1"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_fault_is_refused(fault, cupy, fresh):
    right, wrong, error = REFUSED[fault]
    put_fault(fresh, "layer", right, wrong)
    from fastmlp.backends.cupy import CupyBackend

    with pytest.raises(RuntimeError, match=error):
        columns(CupyBackend())
