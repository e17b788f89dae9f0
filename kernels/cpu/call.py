"""Addresses in compiled code: arrays and functions that are known by where they begin, or by a name."""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .vector import I64


@intrinsic
def array_at(typingctx, address, shape, real):
    """The C-ordered array at an address, of a shape and a type of numbers: `numba.carray` with nothing to compile."""
    sizes = list(shape) if isinstance(shape, types.BaseTuple) else [shape]
    type_ = types.Array(real.dtype, len(sizes), "C")
    whole = types.UniTuple(types.int64, len(sizes)) if isinstance(shape, types.BaseTuple) else types.int64

    def generate(context, builder, signature, arguments):
        address, shape, _ = arguments
        sizes = [shape] if whole == types.int64 else cgutils.unpack_tuple(builder, shape)
        strides = [I64(type_.dtype.bitwidth // 8)]
        for size in sizes[:0:-1]:
            strides.insert(0, builder.mul(strides[0], size))
        array = context.make_array(type_)(context, builder)
        data = builder.inttoptr(address, array.data.type)
        populate_array(array, data, sizes, strides, strides[-1], None)
        return array._getvalue()

    return type_(types.int64, whole, real), generate


def emit_call(builder, address, arguments):
    """Emit a call of the C function at `address`, which returns nothing."""
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder.call(builder.inttoptr(address, kind.as_pointer()), arguments)


@intrinsic
def call4(typingctx, address, a, b, c, d):
    """Call the C function of four integers at an address."""

    def generate(context, builder, signature, arguments):
        emit_call(builder, arguments[0], arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


@intrinsic
def call6(typingctx, address, a, b, c, d, e, f):
    """Call the C function of six integers at an address."""

    def generate(context, builder, signature, arguments):
        emit_call(builder, arguments[0], arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), generate


@intrinsic
def call_loss(typingctx, address, z, y, weight, numbers, dz, totals, N, O, scale):
    """Call the C function of eight integers and a float64 at an address."""

    def generate(context, builder, signature, arguments):
        emit_call(builder, arguments[0], arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9, types.float64), generate


def publish(name, address):
    """Let compiled code find what is at `address` by `name`."""
    llvm.add_symbol(name, address)


DROPOUT = "fastmlp_dropout_"  # and the type of the numbers: where the address of dropout's C function stands


@intrinsic
def leave_out(typingctx, like, a, out, N, H, first, step, share, key):
    """Call the C function of DROPOUT for arrays of the type of `like`; see `fastmlp.backends.elements`."""

    def generate(context, builder, signature, arguments):
        name = DROPOUT + str(like.dtype)
        place = builder.module.globals.get(name) or ir.GlobalVariable(builder.module, I64, name)
        emit_call(builder, builder.load(place), arguments[1:])
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 6, types.float64, types.uint64), generate
