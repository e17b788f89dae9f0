"""Every CUDA source compiles for every generation of cards, without spilling registers, within what a card has.

Needs no GPU and no driver.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest
from fastmlp.kernels import cuda
from fastmlp.kernels.cuda import fused, tensor, tensor_tiles
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
# Of the kernel `middle`, by REAL: hidden units, classes, rows of a tile, and blocks that a multiprocessor must hold.
MIDDLE = {
    "float": [(160, 10, 8, 4), (160, 10, 16, 4), (512, 10, 8, 1), (1, 1, 8, 4), (700, 2, 8, 1), (64, 32, 16, 4)],
    "double": [(160, 10, 8, 2), (96, 10, 16, 3), (250, 10, 8, 1), (64, 16, 16, 4)],
}
# Of its stand-in on tensor cores: hidden units, classes, and blocks that a multiprocessor must hold.
TENSOR_MIDDLE = [(160, 10, 4), (256, 16, 2), (250, 3, 2), (100, 10, 5), (17, 16, 16), (1, 1, 16)]
NAMES = {path.stem for path in Path(cuda.__file__).parent.glob("*.cu")}
PLAIN = sorted(name for name in NAMES if name != "middle" and not name.startswith("tensor"))


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
) -> str:
    """The log. It compiles without a word, spills nothing, and a multiprocessor can hold so many blocks of threads."""
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
    return log


def types_of(pair: str) -> tuple[str, str]:
    """The options that set REAL and ITEM."""
    real, item = pair.split("-")
    return f"-DREAL={real}", f"-DITEM={item}"


def middle_of(H: int, O: int, rows: int) -> tuple[str, ...]:
    """The options that set the sizes of `middle`."""
    return f"-DUNITS={H}", f"-DCLASSES={O}", f"-DTILE={rows}"


@pytest.mark.parametrize(("pair", "card"), [(pair, card) for pair, cards in TYPES.items() for card in cards])
@pytest.mark.parametrize("name", PLAIN)
def test_compiles_without_spills(name, pair, card, nvrtc):
    check(nvrtc, name, card, types_of(pair), THREADS)


@pytest.mark.parametrize(("pair", "card"), [(pair, card) for pair, cards in TYPES.items() for card in cards])
def test_middle_compiles_without_spills(pair, card, nvrtc):
    real = np.dtype({"float": "f4", "double": "f8"}[pair.split("-")[0]])
    for H, O, rows, blocks in MIDDLE[pair.split("-")[0]]:
        assert fused.middle_fits(H, O, real)
        log = check(nvrtc, "middle", card, (*types_of(pair), *middle_of(H, O, rows)), -(-H // 32) * 32, blocks)
        assert int(re.search(r"(\d+) bytes smem", log)[1]) == fused.middle_bytes(rows, H, O, real)


@pytest.mark.parametrize("card", PROCESSORS)
def test_middle_on_tensor_cores_compiles_without_spills(card, nvrtc):
    for H, O, blocks in TENSOR_MIDDLE:
        options = (*types_of("float-f16"), f"-DHIDDEN={H}", f"-DCLASSES={O}")
        log = check(nvrtc, "tensor_middle", card, options, -(-H // fused.WARP_UNITS) * 32, blocks)
        assert int(re.search(r"(\d+) bytes smem", log)[1]) * blocks <= SHARED[card], log


@pytest.mark.parametrize(
    ("sizes", "capability"), [(net, card) for net, cards in NETS.items() for card in cards], ids=str
)
def test_tensor_kernels_fit_the_card(sizes, capability, nvrtc):
    card = tensor_tiles.Card(capability, PROCESSORS[capability], SHARED[capability])
    forward, step = tensor_tiles.forward_tiles(sizes, card), tensor_tiles.step_tiles(sizes, card)
    assert max(forward.shared, step.shared) <= card.shared
    threads, rule = tensor_tiles.threads(sizes[1]), {"RULE": "adamw", "STATES": 2}
    check(nvrtc, "tensor_forward", capability, tensor.constants(sizes, forward), threads, 1)
    check(nvrtc, "tensor_step", capability, tensor.constants(sizes, step, **rule), threads, 1)
    check(nvrtc, "tensor_halves", capability, tensor.constants(sizes), THREADS, 4)


def test_every_source_is_compiled():
    assert {*PLAIN, "middle", "tensor_middle", "tensor_forward", "tensor_step", "tensor_halves"} == NAMES


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("rows", ()),
        ("layer", ()),
        ("loss", ()),
        ("middle", middle_of(160, 10, 8)),
        ("tensor_middle", ("-DHIDDEN=160", "-DCLASSES=10")),
    ],
)
def test_no_double_arithmetic_among_floats(name, sizes, nvrtc):
    """One stray double constant would run at a 64th of the rate on most cards."""
    assert ".f64" not in compiled(nvrtc, source(name), 90, (*types_of("float-f16"), *sizes))["PTX"]


def test_no_double_arithmetic_in_tensor_kernels(nvrtc):
    card, sizes = tensor_tiles.Card(90, 132, SHARED[90]), (20, 12, 3)
    forward = tensor.constants(sizes, tensor_tiles.forward_tiles(sizes, card))
    assert ".f64" not in compiled(nvrtc, source("tensor_forward"), 90, forward)["PTX"]


def test_other_memory_than_the_launcher_counts_is_found(nvrtc):
    card, sizes = tensor_tiles.Card(90, 132, SHARED[90]), (20, 12, 3)
    tiles = tensor_tiles.forward_tiles(sizes, card)
    with pytest.raises(AssertionError, match="count differently"):
        options = tensor.constants(sizes, tiles._replace(shared=tiles.shared + 16))
        compiled(nvrtc, source("tensor_forward"), 90, options)


def test_error_in_a_source_is_found(nvrtc):
    with pytest.raises(AssertionError, match="REALLY"):
        compiled(nvrtc, source("rows").replace("REAL*", "REALLY*"), 90, types_of("float-float"))
