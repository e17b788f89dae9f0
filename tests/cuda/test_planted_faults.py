"""Faults put into the kernels and the code that launches them: the tests must see each, or passing there means nothing.

Each is planted, and a small training is run and compared with that of the NumPy backend.
"""

from __future__ import annotations

import fake_card
import numpy as np
import pytest

from fastmlp.backends.base import Rows
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.network import Network, initialise
from fastmlp.optimizers import Settings, find

N, I, BATCH = 250, 9, 100
SMALL, DEEP = Network((I, 40, 5)), Network((I, 40, 7, 5), "silu", numbers=(0.1, 0.0, 0.0), dropout=0.2)


def train(backend, network: Network) -> np.ndarray:
    """Parameters and totals after two epochs in batches, with a penalty, Adam and clipping."""
    random = np.random.default_rng(1)
    X, y = random.integers(0, 256, (N, I)).astype(np.uint8), random.integers(0, 5, N).astype(np.int32)
    plan = backend.plan(network, initialise(network.sizes, random, np.dtype(np.float64)), None)
    learner = plan.learner(find("adam"), Settings(seed=2, clip=0.1))
    X, y = backend.asarray(X), backend.asarray(y)
    totals = []
    for _ in range(2):
        rows = Rows(X, y, random.permutation(N))
        totals += learner.epoch(rows, BATCH, np.full(3, 0.05), np.full(3, 0.01))
    return np.concatenate([backend.to_host(plan.parameters), totals])


def put_fault(fresh, file: str, right: str, wrong: str) -> None:
    """Replace `right`, which must be there once or more, by `wrong` in a source that is yet to be compiled."""
    from fastmlp.kernels.cuda import nvrtc

    source = nvrtc.source
    assert right in source(file)
    fresh.setattr(nvrtc, "source", lambda name: source(name).replace(right, wrong) if name == file else source(name))


BARRIER, SOFTMAX, SUMS = "        __syncthreads();\n", "\n        if (warp == 0) {", "        for (int o = thread"
OWN_KEY, ANY_KEY = (f"const unsigned long long own = {key};\n    change" for key in ("*key + layer", "*key"))
SHUFFLE, Z, A = "__shfl_xor_sync(ALL, v, lane)", "number(z[n * H + h])", "number(a[n * H + h])"
FAULTS = {
    "rows not picked": (SMALL, "rows", "const long long row = index[n];", "const long long row = n;"),
    "last row left out": (SMALL, "rows", "if (n >= N) return;", "if (n >= N - 1) return;"),
    "step not counted": (SMALL, "rows", "*step = int(now + 1);", "*step = 0;"),
    "order of another step": (SMALL, "rows", "order[first + n]", "order[n]"),
    "numbers of the first step": (SMALL, "rows", "table[now * NUMBERS", "table[0 * NUMBERS"),
    "middle: no mask": (SMALL, "middle", "v > 0 ? d : REAL(0)", "d"),
    "middle: rows of a tile mixed up": (SMALL, "middle", "y[begin + lane]", "y[lane]"),
    "middle: no barrier behind a tile": (SMALL, "middle", "__syncthreads();  // the next tile", "// the next tile"),
    "middle: no barrier before softmax": (SMALL, "middle", BARRIER + SOFTMAX, SOFTMAX),
    "middle: rows beyond the last": (SMALL, "middle", "r < rows; r++) db2", "r < TILE; r++) db2"),
    "mask by the wrong element": (DEEP, "layer", f"{Z}, {A}", "number(z[h]), number(a[h])"),
    "other units left out on the way back": (DEEP, "layer", OWN_KEY, ANY_KEY),
    "no barrier in column sums": (DEEP, "layer", "    __syncthreads();\n", ""),
    "a slope beside the activation": (DEEP, "layer", "return p + a * (1 - p);", "return p;"),
    "a lane shuffled no more": (DEEP, "loss", f"v += {SHUFFLE}", f"v += lane == 2 ? REAL(0) : {SHUFFLE}"),
    "no smoothing": (DEEP, "loss", "factor * (smoothing / O)", "REAL(0)"),
    "a tile's sums forgotten": (DEEP, "loss", ": *slot(sums, o);", ": REAL(0);"),
    "no barrier between dz and its sums": (DEEP, "loss", BARRIER + SUMS, SUMS),
    "gradient not clipped": (SMALL, "update", "if (sum > longest) d", "if (false) d"),
    "biases held small too": (SMALL, "update", "return k % 2 == 0;", "return true;"),
    "last share not added up": (SMALL, "update", "k < K; k += ROWS", "k < K - 1; k += ROWS"),
    "penalty forgotten": (SMALL, "update", "totals[2] +=", "totals[1] += 0 *"),
}  # fmt: skip


@pytest.fixture(scope="module")
def expected() -> dict[Network, np.ndarray]:
    return {network: train(NumpyBackend(), network) for network in (SMALL, DEEP)}


@pytest.fixture(autouse=True)
def few_slots(cupy, fresh) -> None:
    """Blocks take several tiles each, and the middle kernel takes the small network."""
    from fastmlp.kernels.cuda import middle_fits, sums

    fresh.setattr(sums, "MOST_SLOTS", 2)
    assert middle_fits(40, 5, np.dtype(np.float64))


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_fault_shows(fault, cupy, fresh, expected):
    from fastmlp.backends.cupy import CupyBackend

    network = FAULTS[fault][0] if fault else SMALL
    if fault:
        put_fault(fresh, *FAULTS[fault][1:])
        try:
            backend = CupyBackend()
        except RuntimeError as error:
            assert "wrong product" in str(error)
            return
        with np.errstate(all="ignore"):
            assert not np.allclose(train(backend, network), expected[network], rtol=1e-7)
        return
    for network in (SMALL, DEEP):
        np.testing.assert_allclose(train(CupyBackend(), network), expected[network], rtol=1e-9, atol=1e-12)


SLOT = "*slot(sums, h) = sum;"
LEAVE = "    if (threadIdx.y > 0 || h >= H) return;\n"
REFUSED = {
    "barrier that some threads miss": (
        "layer", "    __syncthreads();\n" + LEAVE, LEAVE + "    __syncthreads();\n", "not all threads reach"
    ),
    "slot before the first": ("layer", SLOT, "slot(sums, h)[-1] = sum;", "wrote outside argument"),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_fault_is_refused(fault, cupy, fresh):
    file, right, wrong, error = REFUSED[fault]
    put_fault(fresh, file, right, wrong)
    from fastmlp.backends.cupy import CupyBackend

    with pytest.raises(RuntimeError, match=error):
        train(CupyBackend(), DEEP)


def test_stream_that_does_not_wait_is_seen(cupy, fresh):
    from fastmlp.backends.cupy import CupyBackend

    backend = CupyBackend()
    fresh.setattr(fake_card.Stream, "wait_event", lambda *_: None)
    with pytest.raises(RuntimeError, match="another stream may still be at work"):
        train(backend, SMALL)
