"""The operations of `fastmlp.network` as compiled code calls them: the kernels' own, and those over rules of elements.

An activation and a loss are known by the addresses of their C functions (`fastmlp.backends.elements`); the identity
and ReLU keep their numbers, 0 and 1, since a product does both by itself. A module, not a tuple, since a tuple of
functions could not be kept in Numba's compile cache.
"""

from __future__ import annotations

from fastmlp.kernels.cpu import ops
from fastmlp.kernels.cpu.cache import compiled
from fastmlp.kernels.cpu.call import call4, call_loss, leave_out

affine, backprop_relu, weight_gradient = ops.affine, ops.backprop_relu, ops.weight_gradient


@compiled
def activate(kind, z, a):
    """a = f(z). z (N, H) -> a (N, H)."""
    call4(kind, z.ctypes.data, a.ctypes.data, 0, a.size)


@compiled
def dropout(a, share, key, first, out):
    """out = a / (1 - share) where the unit stays in, else 0. a (N, H) -> out (N, H)."""
    units = a.shape[1]
    leave_out(a, a.ctypes.data, out.ctypes.data, a.shape[0], units, first * units, units, share, key)


@compiled
def dropout_of_units(a, share, key, first, units, out):
    """`dropout` of some units of a layer that has `units`, of a whole batch; they are those from `first` on."""
    leave_out(a, a.ctypes.data, out.ctypes.data, a.shape[0], a.shape[1], first, units, share, key)


@compiled
def backprop(kind, dz, W, z, a, out):
    """out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H). 2*N*O*H flop."""
    ops.backprop(dz, W, out)
    if kind:
        call4(kind, z.ctypes.data, a.ctypes.data, out.ctypes.data, a.size)


@compiled
def loss(address, z, y, weight, numbers, scale, dz, totals):
    """The loss at an address (`fastmlp.backends.elements`). z (N, O), y, weight (N,) or None -> dz (N, O), totals."""
    N, O = z.shape
    weights = 0 if weight is None else weight.ctypes.data
    call_loss(address, z.ctypes.data, y.ctypes.data, weights, numbers.ctypes.data, dz.ctypes.data,
              totals.ctypes.data, N, O, scale)  # fmt: skip
