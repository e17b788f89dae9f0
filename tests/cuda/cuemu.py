"""CUDA C++ compiled for the CPU, behind cuemu.h; so is cuBLAS's stand-in, fake_cublas.cpp."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np

COMPILER = os.environ.get("CXX") or next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC"]
TYPES = {
    "unsigned char": np.uint8, "int": np.int32, "long long": np.int64, "unsigned long long": np.uint64,
    "float": np.float32, "double": np.float64, "f16": np.float16, "bf16": np.uint16,
}  # fmt: skip
PARAMETERS = r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)'


def kernel_parameters(code: str) -> dict[str, list[tuple[str, bool]]]:
    """Of every kernel in `code`, by name, the C type of each parameter and whether it is an array of them."""
    code = re.sub(r"//[^\n]*", "", code)
    kernels = {}
    for name, parameters in re.findall(PARAMETERS, code):
        found = (re.fullmatch(r"(?:const )?([\w ]+?)(\*?) \w+", " ".join(p.split())) for p in parameters.split(","))
        kernels[name] = [(match[1], bool(match[2])) for match in found]
    return kernels


@cache
def header() -> Path:
    """A copy of cuemu.h, which g++ has parsed already: half of what it takes to build a kernel."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    copy = folder / "cuemu.h"
    copy.write_text(Path(__file__).with_name("cuemu.h").read_text().replace("#pragma once", ""))
    subprocess.run([COMPILER, "-x", "c++-header", *FLAGS, str(copy), "-o", f"{copy}.gch"], check=True)
    return copy


def build(code: str, options: tuple[str, ...] = ()) -> ctypes.CDLL:
    """C++ text behind cuemu.h as a library. RuntimeError if it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "kernels.so")
        command = [COMPILER, "-x", "c++", *FLAGS, "-shared", "-include", str(header()), *options, "-", "-o", library]
        done = subprocess.run(command, input=code, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the kernels do not compile:\n{done.stderr}")
        return ctypes.CDLL(str(library))


@cache
def compile_emulated(code: str, options: tuple[str, ...]) -> tuple[ctypes.CDLL, dict]:
    """The library of `code`, and each kernel's parameters as NumPy types. RuntimeError if it does not compile."""
    kernels = kernel_parameters(code)
    for name, parameters in kernels.items():
        values = ", ".join(f"*({c_type}{'*' * array}*)a[{i}]" for i, (c_type, array) in enumerate(parameters))
        code += (
            f'\nextern "C" const char* run_{name}(void** a, const unsigned* shape, unsigned seed, unsigned shared)'
            f"\n{{ return cuemu::launch([](void** a) {{ {name}({values}); }}, a, shape, seed, shared); }}\n"
        )
    loaded = build(code, options)
    types = TYPES | {
        name: TYPES[value] for name, _, value in (option[2:].partition("=") for option in options) if value in TYPES
    }
    return loaded, {
        name: tuple((np.dtype(types[c_type]), array) for c_type, array in parameters)
        for name, parameters in kernels.items()
    }


@cache
def blas() -> ctypes.CDLL:
    """The stand-in for cuBLAS, as a library of its own."""
    real = Path(__file__).with_name("fake_cublas.cpp")
    return build(real.read_text(encoding="utf-8"))
