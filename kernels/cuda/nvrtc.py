"""The kernels' sources, compiled by NVRTC for the GPU at hand on first use."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

REALS = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
ITEMS = REALS | {np.dtype(np.float16): "f16", np.dtype(np.uint16): "bf16"}


def source(name: str) -> str:
    """The CUDA C++ text of ``name.cu``, with the headers of ours that it includes in their place.

    The types REAL and ITEM are left open: they come as options.
    """
    return included(f"{name}.cu")


def included(file: str) -> str:
    """The text of `file`, each ``#include "header.cuh"`` replaced by that header: NVRTC gets one text, no paths."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8").replace("#pragma once\n", "")
    return re.sub(r'#include "(\w+\.cuh)"\n', lambda match: included(match[1]), text)


@cache
def module(name: str, options: tuple[str, ...]) -> Any:
    """``name.cu`` compiled with `options`."""
    import cupy

    return cupy.RawModule(code=source(name), options=options)


@cache
def kernel(name: str, function: str, real: np.dtype, item: np.dtype, options: tuple[str, ...] = ()) -> Any:
    """One kernel of ``name.cu`` for arrays of types `real` and `item`, called with grid, block and arguments."""
    types = f"-DREAL={REALS[real]}", f"-DITEM={ITEMS[item]}"
    return module(name, (*types, *options)).get_function(function)
