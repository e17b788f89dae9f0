"""Every CUDA source compiles for every generation of cards, without spilling registers, within what a card has.

Needs no GPU and no driver.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from pathlib import Path

import pytest
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda import tensor, tensor_tiles
from fastmlp.kernels.cuda.launch import THREADS
from fastmlp.kernels.cuda.nvrtc import source
from tensor_cases import PROCESSORS, SHARED

CARDS = list(SHARED)  # compute capabilities: Turing to Blackwell
REGISTERS = 65536  # of a multiprocessor
BLOCKS = 3  # that it must hold at once, to have work while some of them wait for memory
STATIC = 48 * 1024  # bytes of shared memory that a source may lay out itself
TYPES = {  # REAL and ITEM
    "float-float": CARDS, "float-f16": [75, 86, 100], "float-bf16": [80, 120], "double-double": [75, 90],
}  # fmt: skip
NETS = {(784, 160, 10): list(PROCESSORS), (784, 256, 16): [80, 86, 90], (20, 100, 3): [90]}  # of the tensor cores
MIDDLE = {"float": 160, "double": 96}  # hidden units, and threads, by REAL: all that ten classes leave room for
NAMES = {path.stem for path in Path(cuda.__file__).parent.glob("*.cu")}
PLAIN = sorted(name for name in NAMES if not name.startswith("tensor"))


@pytest.fixture(scope="module")
def nvrtc() -> ctypes.CDLL:
    """The compiler's library, from the package nvidia-cuda-nvrtc."""
    try:
        files = importlib.metadata.files("nvidia-cuda-nvrtc") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("nvidia-cuda-nvrtc is not installed")
    library = next(file for file in files if re.match(r"(lib)?nvrtc(64_\d+_\d+)?\.(so|dll)", file.name))
    return ctypes.CDLL(str(library.locate()))


def compiled(nvrtc: ctypes.CDLL, code: str, card: int, options: tuple[str, ...]) -> dict[str, str]:
    """The "ProgramLog", "PTX" and "CUBIN" of `code`. AssertionError, with the log, if it does not compile."""
    program, options = ctypes.c_void_p(), (f"-arch=sm_{card}", "-ftz=true", "--ptxas-options=-v", *options)
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


def check(
    nvrtc: ctypes.CDLL, name: str, card: int, options: tuple[str, ...], threads: int, blocks: int = BLOCKS
) -> None:
    """It compiles without a word, spills nothing, and a multiprocessor can hold so many blocks of so many threads."""
    results = compiled(nvrtc, source(name), card, options)
    assert results["CUBIN"].startswith("\x7fELF")
    log = results["ProgramLog"]
    kernels = re.findall(r"Compiling entry function '(\w+)'", log)
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", log)]
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill", log)]
    assert 0 < len(kernels) == len(registers) <= len(spills) / 2, log  # a function that is called has its own spills
    assert not any(spills), log
    assert max(registers) * threads * blocks <= REGISTERS, log
    assert max(map(int, re.findall(r"(\d+) bytes smem", log)), default=0) <= STATIC, log
    assert "warning" not in log, log


def options_of(name: str, pair: str) -> tuple[tuple[str, ...], int]:
    """What a source is compiled with, and the threads of a block."""
    real, item = pair.split("-")
    types = f"-DREAL={real}", f"-DITEM={item}"
    if name == "middle":
        return (*types, f"-DUNITS={MIDDLE[real]}", "-DCLASSES=10"), MIDDLE[real]
    return types, THREADS


@pytest.mark.parametrize(("pair", "card"), [(pair, card) for pair, cards in TYPES.items() for card in cards])
@pytest.mark.parametrize("name", PLAIN)
def test_compiles_without_spills(name, pair, card, nvrtc):
    check(nvrtc, name, card, *options_of(name, pair), BLOCKS)


@pytest.mark.parametrize(
    ("sizes", "capability"), [(net, card) for net, cards in NETS.items() for card in cards], ids=str
)
def test_tensor_kernels_fit_the_card(sizes, capability, nvrtc):
    card = tensor_tiles.Card(capability, PROCESSORS[capability], SHARED[capability])
    for tiles in {tensor_tiles.forward_tiles(sizes, n, card) for n in (128, 42_000)}:
        assert tiles.shared <= card.shared
        check(nvrtc, "tensor_forward", capability, tensor.constants(sizes, tiles), tiles.threads, 1)
    tiles = tensor_tiles.gradient_tiles(sizes, card)
    assert tiles.shared <= card.shared
    check(nvrtc, "tensor_gradient", capability, tensor.constants(sizes, tiles), tiles.threads, 1)
    check(nvrtc, "tensor_update", capability, tensor.constants(sizes, None, "adamw"), THREADS, 4)


def test_every_source_is_compiled():
    assert {*PLAIN, "tensor_forward", "tensor_gradient", "tensor_update"} == NAMES


@pytest.mark.parametrize("name", ["rows", "layer", "middle"])
def test_no_double_arithmetic_among_floats(name, nvrtc):
    """One stray double constant would run at a 64th of the rate on most cards."""
    assert ".f64" not in compiled(nvrtc, source(name), 90, options_of(name, "float-f16")[0])["PTX"]


def test_no_double_arithmetic_in_tensor_kernels(nvrtc):
    card, sizes = tensor_tiles.Card(90, 132, SHARED[90]), (20, 12, 3)
    forward, gradient = tensor_tiles.forward_tiles(sizes, 128, card), tensor_tiles.gradient_tiles(sizes, card)
    for name, tiles in (("tensor_forward", forward), ("tensor_gradient", gradient)):
        assert ".f64" not in compiled(nvrtc, source(name), 90, tensor.constants(sizes, tiles))["PTX"]


def test_other_memory_than_the_launcher_counts_is_found(nvrtc):
    card, sizes = tensor_tiles.Card(90, 132, SHARED[90]), (20, 12, 3)
    tiles = tensor_tiles.forward_tiles(sizes, 128, card)
    with pytest.raises(AssertionError, match="count differently"):
        options = tensor.constants(sizes, tiles._replace(shared=tiles.shared + 16))
        compiled(nvrtc, source("tensor_forward"), 90, options)


def test_error_in_a_source_is_found(nvrtc):
    with pytest.raises(AssertionError, match="REALLY"):
        compiled(nvrtc, source("rows").replace("REAL*", "REALLY*"), 90, options_of("rows", "float-float")[0])
