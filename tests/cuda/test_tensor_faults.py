"""Faults put into the tensor-core kernels on purpose: the emulation must show each of them."""

from __future__ import annotations

import numpy as np
import pytest
from fastmlp.kernels.cuda import nvrtc, tensor, tensor_tiles
from tensor_cases import answer, close, problem, step

CASE = problem((300, 72, 9), 150)
CARD = tensor_tiles.Card(86, 64, 30 * 1024)  # little room, many processors: short chunks, and sums that are shared

FORWARD, STEP = "tensor_forward", "tensor_step"
WAIT, BARRIER = "wait_copies<STAGES - 2>();", "__syncthreads();  // the chunk is there"
MET = "if (!__syncthreads_or(last)) return false;"
OWNED = (
    "\n#pragma unroll\n        for (int q = 0; q < OWNED; q++) {\n"
    "            const int i = threadIdx.x + q * THREADS, k"
)
FAULTS = {  # where, what is right, what is wrong
    "forward waits for too few copies": (FORWARD, WAIT, "wait_copies<STAGES - 1>();"),
    "forward reads chunks of other threads unsynchronised": (FORWARD, BARRIER, "//"),
    "inputs of X and W1 in different order": (FORWARD, "input_row(input) * W_PITCH", "input * W_PITCH"),
    "inputs behind the last are multiplied": (FORWARD, "chunk * CHUNK + k >= BYTES", "chunk * CHUNK + k > BYTES"),
    "logits read before they are there": (FORWARD, "__syncthreads();\n    float *db1", "float *db1"),
    "dz2 read before it is there": (FORWARD, "__syncthreads();\n    unsigned dz[1]", "unsigned dz[1]"),
    "every hidden unit passes dz1": (FORWARD, "(short)a[half] <= 0", "false"),
    "the mask of the next unit": (FORWARD, "(int)a[half] < 1 << 16", "(short)a[half] <= 0"),
    "rows behind the batch are trained": (FORWARD, "weight = !there ? 0.0f : ", "weight = "),
    "classes of one thread alone": (FORWARD, "lane < SHARERS; lane *= 2", "lane < 2; lane *= 2"),
    "bias gradients of one row": (FORWARD, "add_lanes(sums.db1[k][j][e], 4, 16)", "sums.db1[k][j][e]"),
    "a share of z1 left out": (FORWARD, "begin + k < (int)gridDim.y)\n#pragma", "begin + k < 1)\n#pragma"),
    "the first block of a sum goes on": (FORWARD, MET, "if (blockIdx.y) return false; __syncthreads();"),
    "step waits for too few copies": (STEP, WAIT, "wait_copies<STAGES - 1>();"),
    "step reads chunks of other threads unsynchronised": (STEP, BARRIER, "//"),
    "rows of the next share": (STEP, "to = chunks * (blockIdx.y + 1) / gridDim.y", "to = chunks"),
    "bytes of wrong rows paired": (STEP, "pick_bytes(pair(k), pair(k + 1)", "pick_bytes(pair(k), pair(k + 2)"),
    "inputs of a pair swapped": (STEP, "(2 * g + q % 4 / 2) * PITCH", "(2 * g + 1 - q % 4 / 2) * PITCH"),
    "gradient read before it is there": (STEP, "__syncthreads();" + OWNED, OWNED),
    "a part left out of the sum": (STEP, "begin + k < blocks ?", "begin + k < blocks - 1 ?"),
    "pixels taken for whole numbers": (STEP, "PITCH + h] * pixel * scale", "PITCH + h] * scale"),
}  # fmt: skip
REFUSED = {  # where, what is right, what is wrong, what is said
    "ring longer than its memory": (
        FORWARD, "(chunk - from) % STAGES * STAGE", "(chunk - from + STAGES) * STAGE", "outside of shared memory",
    ),
    "dz1 behind the batch": (FORWARD, "if (n < N) ((unsigned*)", "if (n <= N) ((unsigned*)", "wrote outside argument"),
    "rows closer than tensor_tiles.py thinks": (FORWARD, "/ 16 | 1) * 16", "/ 16) * 16", "count differently"),
    "rows of X read between words": (FORWARD, "g * X_PITCH + 4 * t", "g * X_PITCH + 3 * t", "divide by 4"),
    "half a warp multiplies": (FORWARD, "if (threadIdx.x < 32) multiply", "if (g < 4) multiply", "different things"),
    "a barrier that some warps miss": (
        FORWARD, "__syncthreads();\n    if (threadIdx.x < 2)", "if (warp) __syncthreads();\n    if (threadIdx.x < 2)",
        "for ever",
    ),
    "a tile that does not arrive": (
        FORWARD, "arrive(arrived + FORWARD + odd);", "if (blockIdx.x) arrive(arrived + FORWARD + odd);",
        "waits for what no kernel before it has done",
    ),
}  # fmt: skip


def forget() -> None:
    """Compile again."""
    nvrtc.module.cache_clear()
    tensor.kernel.cache_clear()


@pytest.fixture
def faulty(cupy, monkeypatch):
    """Puts a fault into the text of the kernels."""

    def put(file: str, right: str, wrong: str) -> None:
        source = nvrtc.source
        assert right in source(file)
        monkeypatch.setattr(
            nvrtc, "source", lambda name: source(name).replace(right, wrong) if name == file else source(name)
        )
        forget()

    yield put
    forget()


def test_without_a_fault_nothing_shows(cupy):
    grids = (find(CASE.sizes, 150, CARD) for find in (tensor_tiles.forward_grid, tensor_tiles.step_grid))
    assert all(shares > 1 for _, shares in grids)
    assert close(CASE, step(CASE, CARD), answer(CASE))


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_shows(fault, faulty):
    faulty(*FAULTS[fault])
    with np.errstate(invalid="ignore", over="ignore"):
        assert not close(CASE, step(CASE, CARD), answer(CASE))


@pytest.mark.parametrize("fault", REFUSED)
def test_fault_is_refused(fault, faulty):
    *where, error = REFUSED[fault]
    faulty(*where)
    with pytest.raises(RuntimeError, match=error):
        step(CASE, CARD)
