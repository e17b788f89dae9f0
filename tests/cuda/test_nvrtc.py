"""Every CUDA source compiles for every generation of cards, without spilling registers. Needs no GPU and no driver."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from pathlib import Path

import pytest
from fastmlp.kernels import cuda

NAMES = sorted(path.stem for path in Path(cuda.__file__).parent.glob("*.cu"))
CARDS = [75, 80, 86, 89, 90, 100, 120]  # compute capabilities: Turing to Blackwell
REGISTERS = 65536  # of a multiprocessor
BLOCKS = 3  # that it must hold at once, to have work while some of them wait for memory


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    """The compiler's library, from the package nvidia-cuda-nvrtc."""
    try:
        files = importlib.metadata.files("nvidia-cuda-nvrtc") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    library = next(file for file in files if re.match(r"(lib)?nvrtc(64_\d+_\d+)?\.(so|dll)", file.name))
    return ctypes.CDLL(str(library.locate()))


def compiled(nvrtc: ctypes.CDLL, code: str, card: int, real: str) -> dict[str, str]:
    """The "ProgramLog", "PTX" and "CUBIN" of `code`. AssertionError, with the log, if it does not compile."""
    program, options = ctypes.c_void_p(), [f"-arch=sm_{card}", f"-DREAL={real}", "--ptxas-options=-v"]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None)
    listed = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    failed = nvrtc.nvrtcCompileProgram(program, len(options), listed)
    results = {}
    for what in ["ProgramLog"] if failed else ["ProgramLog", "PTX", "CUBIN"]:
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{what}")(program, text)
        results[what] = text.raw.decode("latin-1")
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    assert not failed, results["ProgramLog"]
    return results


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_spills(name, card, real, nvrtc, record_property):
    results = compiled(nvrtc, cuda.source(name), card, real)
    assert results["CUBIN"].startswith("\x7fELF")
    log = results["ProgramLog"]
    kernels = re.findall(r"Compiling entry function '(\w+)'", log)
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", log)]
    assert len(kernels) == len(registers) == len(spills) / 2 > 0, log
    assert not any(spills), log
    for kernel, used in zip(kernels, registers, strict=True):
        record_property(f"registers of {kernel}", used)
        assert used * cuda.THREADS * BLOCKS <= REGISTERS, log
    assert "warning" not in log, log


@pytest.mark.parametrize("name", ["rows", "layer", "update"])
def test_no_double_arithmetic_among_floats(name, nvrtc):
    """One stray double constant would run at a 64th of the rate on most cards."""
    assert "f64" not in compiled(nvrtc, cuda.source(name), 90, "float")["PTX"]


def test_error_in_a_source_is_found(nvrtc):
    with pytest.raises(AssertionError, match="REALLY"):
        compiled(nvrtc, cuda.source("rows").replace("REAL*", "REALLY*"), 90, "float")
