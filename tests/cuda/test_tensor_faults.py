"""Faults put into the tensor-core kernels on purpose: the emulation must show each of them."""

from __future__ import annotations

import numpy as np
import pytest
from fastmlp.kernels.cuda import nvrtc, tensor
from tensor_cases import SMALL, answer, close, problem, step

CASE, CARD = problem((300, 72, 9), 150), SMALL[86]  # several tiles, chunks and shares; odd numbers of tiles in a warp

FORWARD, GRADIENT, UPDATE = "tensor_forward", "tensor_gradient", "tensor_update"
WAIT, BARRIER = "wait_copies<STAGES - 2>();", "__syncthreads();  // the chunk is there"
FAULTS = {  # where, what is right, what is wrong
    "forward waits for too few copies": (FORWARD, WAIT, "wait_copies<STAGES - 1>();"),
    "forward reads chunks of other threads unsynchronised": (FORWARD, BARRIER, "//"),
    "inputs of X and W1 in different order": (FORWARD, "stage + input_row(input) * W_PITCH", "stage + input * W_PITCH"),
    "inputs behind the last are multiplied": (FORWARD, "chunk * CHUNK + k >= BYTES", "chunk * CHUNK + k > BYTES"),
    "logits read before they are there": (FORWARD, "__syncthreads();\n        softmax", "softmax"),
    "dz2 read before it is there": (FORWARD, "__syncthreads();\n        backward", "backward"),
    "every hidden unit passes dz1": (FORWARD, "(short)a[half] <= 0", "false"),
    "the mask of the next unit": (FORWARD, "(int)a[half] < 1 << 16", "(short)a[half] <= 0"),
    "rows behind the batch are trained": (FORWARD, "share = !there ? 0.0f : ", "share = "),
    "z1 not cleared for the next tile": (FORWARD, "z[2 * half] = z[2 * half + 1] = 0;", ";"),
    "odd tile of units meets other units": (FORWARD, "pair ? a1[i][next][0] : 0", "a1[i][next][0]"),
    "bias gradients of one row": (FORWARD, "add_lanes(sums.db1[j][e], 4, 16)", "sums.db1[j][e]"),
    "warps of rows not added": (FORWARD, "turn < ROW_WARPS", "turn < 1"),
    "gradient waits for too few copies": (GRADIENT, WAIT, "wait_copies<STAGES - 1>();"),
    "gradient reads chunks of other threads unsynchronised": (GRADIENT, BARRIER, "//"),
    "rows of the next share": (GRADIENT, "chunks = (at_most(share, N - first)", "chunks = ((N - first)"),
    "bytes of wrong rows paired": (GRADIENT, "pick_bytes(rows[0], rows[1], selector)",
                                   "pick_bytes(rows[0], rows[2], selector)"),
    "inputs of a pair swapped": (GRADIENT, "0x7362 : 0x5140", "0x5140 : 0x7362"),
    "the odd tile's inputs where a pair's would be": (GRADIENT, "32 * PAIRS + 2 * g;", "32 * PAIRS + 4 * g;"),
    "a part left out of the sum": (UPDATE, "k < parts", "k < parts - 1"),
    "pixels taken for whole numbers": (UPDATE, "HEAD) * pixel * scale", "HEAD) * scale"),
}  # fmt: skip
REFUSED = {  # where, what is right, what is wrong, what is said
    "ring longer than its memory": (
        FORWARD, "step % STAGES * STAGE, X", "step % (STAGES + 3) * STAGE, X", "outside of shared memory",
    ),
    "dz1 behind the batch": (
        FORWARD, "if (n + 8 * half < N) out", "if (n + 8 * half <= N) out", "wrote outside argument",
    ),
    "rows closer than tensor_tiles.py thinks": (FORWARD, "/ 16 | 1) * 16", "/ 16) * 16", "count differently"),
    "rows of X read between words": (FORWARD, "X_PITCH + 4 * at.t", "X_PITCH + 3 * at.t", "divide by 4"),
    "half a warp multiplies": (FORWARD, "if (at.unit == 0) multiply", "if (at.g < 4) multiply", "different things"),
    "a barrier that some warps miss": (
        FORWARD, "        __syncthreads();\n    }\n", "        if (at.unit == 0) __syncthreads();\n    }\n", "for ever",
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
