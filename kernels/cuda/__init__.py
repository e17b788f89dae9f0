"""CUDA kernels: the passes around the matrix products, compiled by NVRTC for the GPU at hand on first use.

The functions here launch the kernels of the ``.cu`` files beside them. N rows, I inputs, H hidden units, O outputs, P
parameters. Arrays live on the GPU and are C-ordered. "real" arrays, float32 or float64, hold the parameters and what is
computed in; "item" arrays hold the operands of products: the real type itself, float16, or the bits of bfloat16 as
uint16. Nothing waits for the GPU, nothing is read back, and nothing is allocated, so that every launch may be part of a
CUDA graph.
"""

from .epoch import NUMBERS, TOTALS, Epoch
from .fused import middle, middle_fits
from .layer import Dropped, activate, add_bias, add_last_bias, delta, drop_deltas, drop_units
from .loss import elementwise_loss, softmax_cross_entropy
from .parameters import LENGTHS, add_penalty, convert, finish, squares, update, update_clipped
from .rows import gather, go_on
from .sums import Sums, most_slots, slots

__all__ = [
    "LENGTHS", "NUMBERS", "TOTALS", "Dropped", "Epoch", "Sums", "activate", "add_bias", "add_last_bias",
    "add_penalty", "convert", "delta", "drop_deltas", "drop_units", "elementwise_loss", "finish", "gather", "go_on",
    "middle", "middle_fits", "most_slots", "slots", "softmax_cross_entropy", "squares", "update", "update_clipped",
]  # fmt: skip
