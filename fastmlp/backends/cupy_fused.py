"""Which fused kernels can take a network on a GPU, and where the sums that they leave belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastmlp.activations import RELU
from fastmlp.backends.base import Array
from fastmlp.kernels.cuda import tensor
from fastmlp.kernels.cuda.products import PRECISIONS
from fastmlp.kernels.cuda.tensor_tiles import Card, unsupported
from fastmlp.network import Network, layer_views, parameter_count

if TYPE_CHECKING:
    from fastmlp.backends.cupy_plan import CupyPlan


class ColumnSums(NamedTuple):
    """The gradients that are sums of columns: those of biases and, where `middle` ran, of the last weights."""

    parts: Array  # (K, C) real: of each a column, and two of totals
    where: Array  # (C - 2,) int32: parameters
    end: int  # weights before this parameter are not among them


def plain(network: Network) -> bool:
    """Whether it ends in a hidden layer of ReLU and a softmax, with nothing beside: what fused kernels take."""
    relu = len(network.sizes) > 2 and network.kinds[-2] == RELU
    return relu and network.loss == "cross_entropy" and not any(network.numbers) and not network.dropout


def tensor_card(plan: CupyPlan) -> Card | None:
    """The card at hand, where the tensor-core kernels can take the network at this precision."""
    if plan.precision != PRECISIONS["float16"] or not plain(plan.network):
        return None
    card = tensor.card()
    return None if unsupported(plan.sizes, card) else card


def sum_places(sizes: tuple[int, ...], fused: bool) -> np.ndarray:
    """Where each partial sum belongs in the gradient (C - 2,): biases by layer, or as `middle` has them."""
    places = np.arange(parameter_count(sizes))
    W, b = layer_views(places, sizes)
    parts = [*b[:-2], W[-1].T.ravel(), *b[-2:]] if fused else b
    return np.concatenate(parts).astype(np.int32)
