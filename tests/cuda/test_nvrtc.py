"""Every CUDA source compiles for every generation of cards, without spilling registers. Needs no GPU and no driver."""

from __future__ import annotations

import ctypes
import importlib.metadata
import re

import pytest
from fastmlp.kernels import cuda

CARDS = [75, 80, 86, 89, 90, 100, 120]  # compute capabilities: Turing to Blackwell
SIZES = {"middle": ("-DUNITS=160", "-DCLASSES=10")}  # constants of a source that has some
SOURCES = ["rows", "layer", "loss", "update", "middle"]
TYPES = [("float", "float"), ("float", "f16"), ("float", "bf16"), ("double", "double")]  # REAL, ITEM
THREADS = {"middle": 160, "begin": cuda.BEGIN_THREADS}  # of a block; of all others cuda.THREADS
# Every type on two cards, the usual ones on all.
CASES = [
    (name, card, *types) for name in SOURCES for card in CARDS for types in TYPES[: 4 if card in (80, 120) else 2]
    if (name, types) != ("middle", ("double", "double"))  # it would not fit into shared memory: see middle_fits
]  # fmt: skip
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


def compiled(nvrtc: ctypes.CDLL, code: str, card: int, *more: str) -> dict[str, str]:
    """The "ProgramLog", "PTX" and "CUBIN" of `code`. AssertionError, with the log, if it does not compile."""
    program, options = ctypes.c_void_p(), [f"-arch=sm_{card}", "--ptxas-options=-v", *more]
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


def options(name: str, real: str, item: str) -> tuple[str, ...]:
    """The options that the launchers give."""
    return f"-DREAL={real}", f"-DITEM={item}", *SIZES.get(name, ())


@pytest.mark.parametrize(("name", "card", "real", "item"), CASES)
def test_compiles_without_spills(name, card, real, item, nvrtc, record_property):
    results = compiled(nvrtc, cuda.source(name), card, *options(name, real, item))
    assert results["CUBIN"].startswith("\x7fELF")
    log = results["ProgramLog"]
    kernels = re.findall(r"Compiling entry function '(\w+)'", log)
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", log)]
    assert 0 < len(kernels) == len(registers) <= len(spills) / 2, log  # functions that are called count there too
    assert not any(spills), log
    for kernel, used in zip(kernels, registers, strict=True):
        record_property(f"registers of {kernel}", used)
        assert used * THREADS.get(kernel, cuda.THREADS) * BLOCKS <= REGISTERS, log
    assert "warning" not in log, log


@pytest.mark.parametrize("name", ["rows", "layer", "loss", "middle"])
def test_no_double_arithmetic_among_floats(name, nvrtc):
    """One stray double constant would run at a 64th of the rate on most cards."""
    ptx = compiled(nvrtc, cuda.source(name), 90, *options(name, "float", "f16"))["PTX"]
    assert ".f32" in ptx
    assert ".f64" not in ptx


def test_error_in_a_source_is_found(nvrtc):
    with pytest.raises(AssertionError, match="REALLY"):
        compiled(nvrtc, cuda.source("rows").replace("REAL*", "REALLY*"), 90, *options("rows", "float", "float"))
