"""The vector width of this CPU, and the few LLVM instructions the kernels are built from."""

from functools import cache

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import config

I8 = ir.IntType(8)
I16 = ir.IntType(16)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
BFLOAT16 = "bfloat16"  # products of float32 rounded to bfloat16; sums are float32
REALS = {"float32": ir.FloatType(), "float64": ir.DoubleType(), BFLOAT16: ir.FloatType()}
NAMED = {  # what NUMBA_CPU_NAME stands for; any other name is taken for the least
    ("avx512f", "avx2", "fma"): ("x86-64-v4", "skylake-avx512", "cascadelake", "icelake-server", "sapphirerapids",
                                 "znver4", "znver5"),
    ("avx2", "fma"): ("x86-64-v3", "haswell", "broadwell", "skylake", "alderlake", "znver1", "znver2", "znver3"),
}  # fmt: skip
BYTES = {"float32": 4, "float64": 8, BFLOAT16: 4}


class BFloat(ir.Type):
    """LLVM's bfloat16, which llvmlite does not have."""

    intrinsic_name = "bf16"

    def _to_string(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, BFloat)

    def __hash__(self):
        return hash(BFloat)


@cache
def host_features():
    """Names of the host's instruction sets, asked for once: it takes as long as a short epoch."""
    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def cpu_features():
    """Names of the instruction sets that Numba compiles for: the host's, unless NUMBA_CPU_NAME narrows them."""
    if config.CPU_FEATURES is not None:
        return {flag[1:] for flag in config.CPU_FEATURES.split(",") if flag.startswith("+")}
    if config.CPU_NAME is None:
        return host_features()
    for features, names in NAMED.items():
        if config.CPU_NAME in names:
            return set(features)
    return set()


def register_bytes():
    """Bytes of a vector register: 64 with AVX-512, 32 with AVX2, else 16 (NEON, SSE)."""
    features = cpu_features()
    return 64 if "avx512f" in features else 32 if "avx2" in features else 16


def has_bfloat16():
    """Whether the CPU multiplies pairs of bfloat16: AVX-512 BF16."""
    return {"avx512f", "avx512bf16"} <= cpu_features()


def has_compress():
    """Whether the CPU moves chosen 16-bit lanes of a register together: AVX-512 VBMI2."""
    return {"avx512f", "avx512vbmi2"} <= cpu_features()


def on_x86():
    """Whether the process runs on an x86 CPU."""
    return llvm.get_process_triple().startswith(("x86_64", "i686", "amd64"))


def has_fma():
    """Whether the CPU fuses a multiplication with an addition; without it `llvm.fma` would call the C library."""
    features = cpu_features()
    return "fma" in features or not on_x86()


def declare(module, name, result, arguments):
    """The function `name` of LLVM or of the process, declared in the module once."""
    return module.globals.get(name) or ir.Function(module, ir.FunctionType(result, arguments), name=name)


def pointer(builder, address, type_):
    """An address held in an integer, as a pointer to `type_`."""
    return builder.inttoptr(address, type_.as_pointer())


def load(builder, address, type_, align):
    """The value of `type_` at an address that is a multiple of `align` bytes."""
    value = builder.load(pointer(builder, address, type_))
    value.align = align
    return value


def store(builder, value, address, align):
    """Put a value at an address that is a multiple of `align` bytes."""
    builder.store(value, pointer(builder, address, value.type)).align = align


def load_lanes(builder, address, vector, align, mask):
    """The lanes of a vector that `mask` switches on, zero in the others, whose memory is not touched; None is all."""
    if mask is None:
        return load(builder, address, vector, align)
    return masked(builder, "load", vector, vector, [pointer(builder, address, vector), I32(align), mask, zeros(vector)])


def store_lanes(builder, value, address, align, mask):
    """Put the lanes that `mask` switches on; None is all."""
    if mask is None:
        store(builder, value, address, align)
        return
    arguments = [value, pointer(builder, address, value.type), I32(align), mask]
    masked(builder, "store", value.type, ir.VoidType(), arguments)


def masked(builder, verb, vector, result, arguments):
    """A call of `llvm.masked.load` or `llvm.masked.store`, which never touch a lane that is off."""
    kind = {"float": "f32", "double": "f64"}.get(str(vector.element), str(vector.element))
    name = f"llvm.masked.{verb}.v{vector.count}{kind}.p0"
    return builder.call(declare(builder.module, name, result, [value.type for value in arguments]), arguments)


def first_lanes(builder, count, lanes):
    """A mask with the first `count` of `lanes` lanes on; lanes is 64 at most."""
    on = builder.not_(builder.shl(I64(-1), count))  # `count` ones; from 64 on a shift means nothing
    on = builder.select(builder.icmp_signed("<", count, I64(64)), on, I64(-1))
    bits = on if lanes == 64 else builder.trunc(on, ir.IntType(lanes))
    return builder.bitcast(bits, ir.VectorType(ir.IntType(1), lanes))


def zeros(vector):
    """The vector with zero in every lane."""
    return ir.Constant(vector, None)


def broadcast(builder, scalar, vector):
    """A vector with the scalar in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, I32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, vector.count), None))
