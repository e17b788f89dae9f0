"""Dropout: which hidden units are left out in a step.

The choice is a hash of the step's key and the unit's place, not a draw from a sequence: every backend, any number of
threads and any cut into tiles leave out the same units, and the backward pass finds them again without a stored mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

GOLDEN, FIRST, SECOND = map(np.uint64, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
S27, S30, S31, S40 = map(np.uint64, (27, 30, 31, 40))
BITS = 24  # of a hash that are compared with the share to leave out


class Dropout(NamedTuple):
    """What is left out in one pass."""

    share: Any  # of the hidden units to leave out; 0 leaves out none
    key: Any  # uint64 of the step; layer l takes key + l
    first: Any  # place in the batch of the first row at hand


NONE = Dropout(0.0, np.uint64(0), 0)


def hashed(n: Any) -> Any:
    """64 bits that look random, of each uint64. Steele, Lea and Flood, "Fast splittable ...", 2014: SplitMix64."""
    n = (n + GOLDEN) * GOLDEN
    n = (n ^ (n >> S30)) * FIRST
    n = (n ^ (n >> S27)) * SECOND
    return n ^ (n >> S31)


def stays(share: float, key: Any, place: Any) -> Any:
    """Whether the unit at `place`, uint64, row in the batch * units of the layer + unit, stays in."""
    return (hashed(place ^ hashed(key)) >> S40) >= np.uint64(share * 2**BITS)


def step_key(seed: int, step: int) -> np.uint64:
    """The key of a step: far from the keys of its neighbours, so that their layers' keys never meet.

    The next step's is 2^16 more, which compiled epochs count on; seeds are spread by an odd number.
    """
    return np.uint64((seed * int(GOLDEN) + step * 2**16) % 2**64)
