"""Launches that begin early: what the driver is told, with a driver that writes it down."""

from __future__ import annotations

import ctypes
import sys
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from fastmlp.kernels.cuda import early


@pytest.fixture
def told(monkeypatch):
    """What the driver was told last, and the status it gives."""
    heard = {"status": 0}

    def launch(config, function, arguments, extra):
        attribute = config.attributes[0]
        heard.update(
            grid=tuple(config.grid), block=tuple(config.block), shared=config.shared, stream=config.stream,
            count=config.count, attribute=(attribute.id, attribute.value), function=function, extra=extra,
            address=ctypes.cast(arguments[0], ctypes.POINTER(ctypes.c_uint64))[0],
            number=ctypes.cast(arguments[1], ctypes.POINTER(ctypes.c_int32))[0],
        )  # fmt: skip
        return heard["status"]

    monkeypatch.setitem(sys.modules, "cupy", fake_cupy)
    monkeypatch.setattr(early, "driver", lambda: SimpleNamespace(cuLaunchKernelEx=launch))
    return heard


def test_the_driver_is_told_all(told):
    array, kernel = fake_cupy.zeros(3), SimpleNamespace(kernel=SimpleNamespace(ptr=77))
    with fake_cupy.Stream(non_blocking=True) as stream:
        early.launch_early(kernel, (8, 7), (320,), (array, np.int32(-5)), 1000)
    assert told == {
        "status": 0, "grid": (8, 7, 1), "block": (320, 1, 1), "shared": 1000, "stream": stream.ptr, "count": 1,
        "attribute": (early.PROGRAMMATIC_STREAM_SERIALIZATION, 1), "function": 77, "extra": None,
        "address": array.data.ptr, "number": -5,
    }  # fmt: skip


def test_a_refusal_is_an_error(told):
    told["status"] = 719
    with pytest.raises(RuntimeError, match="refused to launch a kernel, with status 719"):
        early.launch_early(
            SimpleNamespace(kernel=SimpleNamespace(ptr=77)), (1,), (32,), (fake_cupy.zeros(1), np.int32(0)), 0
        )


def test_structures_are_laid_out_as_in_cuda_h():
    """By the offsets that a C compiler gives: CUlaunchAttribute has 4 bytes of padding and a union of 64 behind."""
    assert ctypes.sizeof(early.Attribute) == 72
    assert early.Attribute.value.offset == 8
    assert ctypes.sizeof(early.Config) == 56
    assert (early.Config.shared.offset, early.Config.stream.offset, early.Config.attributes.offset) == (24, 32, 40)
