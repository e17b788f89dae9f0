"""Addresses in compiled code: arrays and functions that are known by where they begin, or by a name."""

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .vector import declare


@intrinsic
def as_pointer(typingctx, address):
    """An address held in an integer, as a pointer that `numba.carray` takes."""

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


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
    """Let compiled code find the C function at `address` by `name`."""
    llvm.add_symbol(name, address)


DROPOUT = "fastmlp_dropout_"  # and the type of the numbers


@intrinsic
def leave_out(typingctx, like, a, out, N, H, first, share, key):
    """Call the C function published as DROPOUT for arrays of the type of `like`; see `fastmlp.backends.elements`."""

    def generate(context, builder, signature, arguments):
        kinds = [argument.type for argument in arguments[1:]]
        function = declare(builder.module, DROPOUT + str(like.dtype), ir.VoidType(), kinds)
        builder.call(function, arguments[1:])
        return context.get_dummy_value()

    return types.void(like, *[types.int64] * 5, types.float64, types.uint64), generate
