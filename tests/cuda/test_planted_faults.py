"""Faults put into the kernels and the code that launches them: the tests must see each, or passing there means nothing.

Each is planted, and a small training is run and compared with that of the NumPy backend.
"""

from __future__ import annotations

import fake_card
import numpy as np
import pytest
from tolerance import tolerance

from fastmlp.backends.base import Rows
from fastmlp.backends.numpy import NumpyBackend
from fastmlp.network import Network, initialise, layer_views
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


BARRIER, SUMS = "        __syncthreads();\n", "            for (int o = first"
ASK, LOGITS = "        ask_for(begin + step)", "\n        for (int i = thread"
SOFTMAX, BACK = "\n        if (thread < TILE) {", "\n        if (unit < UNITS) {"
OWN_KEY, ANY_KEY = (
    f"const unsigned long long own = {key};\n    change"
    for key in ("step_key(*key, turn, step) + layer", "step_key(*key, turn, step)")
)
SHUFFLE, Z, A = "__shfl_xor_sync(ALL, v, lane)", "number(z[n * H + h])", "number(a[n * H + h])"
FAULTS = {
    "rows not picked": (SMALL, "rows", "row_of(order, begin + n)", "begin + n"),
    "last row left out": (SMALL, "rows", "if (i < left) write", "if (i < left - W) write"),
    "steps not counted": (SMALL, "rows", "turn[STEPS_TAKEN] += steps", "turn[STEPS_TAKEN] += 0"),
    "rows not counted": (SMALL, "rows", "turn[ROWS_VISITED] += rows", "turn[ROWS_VISITED] += 0"),
    "order of another step": (SMALL, "rows", "turn[ROWS_VISITED] + visit", "turn[ROWS_VISITED]"),
    "numbers of another step": (SMALL, "update", "table, turn[STEPS_TAKEN] + step,", "table, turn[STEPS_TAKEN],"),
    "middle: no mask": (SMALL, "middle", "value > 0 ? back : REAL(0)", "back"),
    "middle: rows of a tile mixed up": (SMALL, "middle", "y[begin + thread]", "y[thread]"),
    "middle: another tile asked for": (SMALL, "middle", "from = z + begin * UNITS", "from = z + begin / 2 * UNITS"),
    "middle: lanes of a row not added up": (SMALL, "middle", "lanes = TILE; lanes < 32", "lanes = TILE; lanes < 16"),
    "middle: no barrier behind the hidden layer": (SMALL, "middle", BARRIER + ASK, ASK),
    "middle: no barrier before softmax": (SMALL, "middle", BARRIER + SOFTMAX, SOFTMAX),
    "middle: no barrier before the logits": (SMALL, "middle", BARRIER + LOGITS, LOGITS),
    "middle: no barrier behind the softmax": (SMALL, "middle", BARRIER + BACK, BACK),
    "middle: rows beyond the last": (SMALL, "middle", "thread < rows ? sum[o]", "true ? sum[o]"),
    "columns counted from a block's first": (DEEP, "layer", "int((column + i) % W)", "int(i % W)"),
    "mask by the wrong element": (DEEP, "layer", f"{Z}, {A}", "number(z[h]), number(a[h])"),
    "other units left out on the way back": (DEEP, "layer", OWN_KEY, ANY_KEY),
    "no barrier in column sums": (DEEP, "layer", "    __syncthreads();\n", ""),
    "a slope beside the activation": (DEEP, "layer", "return p + a * (1 - p);", "return p;"),
    "a lane shuffled no more": (DEEP, "loss", f"v += {SHUFFLE}", f"v += lane == 2 ? REAL(0) : {SHUFFLE}"),
    "a row shuffled no more": (DEEP, "loss", f"v += {SHUFFLE}", f"v += lane == 8 ? REAL(0) : {SHUFFLE}"),
    "no smoothing": (DEEP, "loss", "factor * (smoothing / O)", "REAL(0)"),
    "a tile's sums forgotten": (DEEP, "loss", ": *slot(sums, o);", ": REAL(0);"),
    "a row that is not there counted": (DEEP, "loss", "if (there) {\n            losses", "{\n            losses"),
    "no barrier between dz and its sums": (DEEP, "loss", "    " + BARRIER + SUMS, SUMS),
    "gradient not clipped": (SMALL, "update", "length > longest ?", "false ?"),
    "biases held small too": (SMALL, "update", "return k % 2 == 0;", "return true;"),
    "last share not added up": (SMALL, "update", "j * ROWS < K ?", "j * ROWS < K - 1 ?"),
    "no barrier before the last sums": (SMALL, "update", "    __syncthreads();\n    sum = 0;", "    sum = 0;"),
    "penalty forgotten": (SMALL, "update", "now + 2] +=", "now + 2] += 0 *"),
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


HALF_NET = Network((I, 150, 5))
MEET = "        __syncthreads();\n"
ASKED, ADDED, CLEARED = (
    "        float loss = 0, right = 0;",
    "        losses += loss",
    "    TailSums<FRAGMENTS> sums = {};",
)
TENSOR_FAULTS = {
    "no barrier behind the weights": ("    __syncthreads();\n\n" + CLEARED, CLEARED),
    "no barrier before softmax": (MEET + ASKED, ASKED),
    "no barrier behind the softmax": (MEET + ADDED, ADDED),
    "totals of one warp": ("w < WARPS; w++) sum", "w < 1; w++) sum"),
    "every hidden unit passes": ("(short)a[half] <= 0", "false"),
    "the mask of the next unit": ("(int)a[half] < 1 << 16", "(short)a[half] <= 0"),
    "rows beyond the last": ("label < 0 ? 0.0f : 1.0f", "1.0f"),
    "labels of the first tile": ("n < N ? y[n]", "n < N ? y[n % ROWS]"),
    "the same tile asked for": ("ask_for(begin + step)", "ask_for(begin)"),
    "units in the order of rows": ("input_row(i / 16)", "i / 16"),
    "a bias of a unit behind": ("bias + h + 16 * k + 2 * j", "bias + h + 16 * k + j"),
    "the second fragment's weights": ("W2 + 16 * k * C_PITCH", "W2"),
    "bias gradients of one row": ("add_lanes(sums.db1[k][j][e], 4, 16)", "sums.db1[k][j][e]"),
    "weights not turned": ("sums, 1, H, h, 2, g, t", "sums, O, 1, h, 2, g, t"),
    "weights behind the classes": ("i % 16 < O ?", "true ?"),
}  # fmt: skip


def off_by(backend) -> float:
    """How far the loss and the gradient in float16 are from those in float64, by their norm; infinite where NaN."""
    random = np.random.default_rng(1)
    X, y = random.integers(0, 256, (N, I)).astype(np.uint8), random.integers(0, 5, N).astype(np.int32)
    start = initialise(HALF_NET.sizes, random, np.dtype(np.float64))
    start = (start + 0.1 * random.standard_normal(len(start))).astype(np.float16)  # rounding them is no error
    results = []
    for on, real, precision in ((NumpyBackend(), np.float64, ()), (backend, np.float32, ("float16",))):
        learner = on.plan(HALF_NET, start.astype(real), None, *precision).learner(find("sgd"), Settings())
        loss, g = learner.gradient(Rows(on.asarray(X), on.asarray(y)))
        results.append([np.array([loss]), *(part.ravel() for kind in layer_views(g, HALF_NET.sizes) for part in kind)])
    with np.errstate(all="ignore"):
        errors = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in zip(*results, strict=True)]
    return max(np.nan_to_num(errors, nan=np.inf))


@pytest.mark.parametrize("fault", [None, *TENSOR_FAULTS])
def test_fault_of_the_middle_on_tensor_cores_shows(fault, cupy, fresh):
    from fastmlp.kernels.cuda import fused

    from fastmlp.backends.cupy import CupyBackend

    fresh.setattr(fused, "FEWEST_ROWS", 1)
    backend = CupyBackend()
    if fault:
        put_fault(fresh, "tensor_middle", *TENSOR_FAULTS[fault])
    assert (off_by(backend) > tolerance("half", np.float32)[0]) == bool(fault)


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
