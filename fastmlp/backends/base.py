"""The contract of a backend: an array module, its fused operations, and where they run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

from fastmlp.device_arrays import refuse_on_cpu

if TYPE_CHECKING:
    from fastmlp.network import Network
    from fastmlp.optimizers import Optimizer, Settings

Array = Any  # numpy.ndarray, or the array type of the backend


class Ops(NamedTuple):
    """The fused operations `fastmlp.network` is written in. Each writes into its last arguments.

    Arrays are C-ordered. All floating arrays of one call share one type, float32 or float64, but for
    ``totals``, which is always float64. N rows, I inputs, H units, O classes, P parameters.
    """

    rows: Callable[..., Array]
    """rows(X, index, out) -> x. The rows of X that `index`, a slice or an integer array, picks, ready for the first
    layer: float rows as they are, uint8 rows as pixels / 255. Written into out (N, I), or a view of X where no
    copy is needed."""

    affine: Callable[..., None]
    """affine(x, W, b, out, relu). out = x W + b, then max(., 0) if relu. x (N, I), W (I, H), b (H,) -> out (N, H)."""

    activate: Callable[..., None]
    """activate(kind, z, a). a = f(z), `kind` the activation's number. z (N, H) -> a (N, H), which may be z itself."""

    dropout: Callable[..., None]
    """dropout(a, share, key, first, out). out = a / (1 - share) where the unit stays in, else 0; see
    `fastmlp.dropout.stays`. `first` is the place in the batch of the first row. a (N, H) -> out (N, H), which may be a
    itself."""

    softmax_cross_entropy: Callable[..., None]
    """softmax_cross_entropy(z, y, scale, dz, totals, weight, numbers). dz = (softmax(z) - onehot(y)) * scale;
    totals += [sum over rows of logsumexp(z) - z[y], rows whose first largest z is at y]. z (N, O), y (N,) int32 ->
    dz (N, O), totals (2,) or more. dz may be z itself. With numbers = (smoothing, gamma, ceiling) the target is
    (1 - smoothing) onehot(y) + smoothing / O, or the loss focal, -(1 - p[y])^gamma log p[y] (Lin et al., 2017), or
    what a row adds to totals at most `ceiling`; two of the three are 0. weight (N,) multiplies a row's loss and dz."""

    elementwise_loss: Callable[..., None]
    """elementwise_loss(kind, z, y, scale, dz, totals, weight, numbers). dz = dloss/dz * scale; totals += [sum of
    losses over rows and outputs, rows in which z > 0 exactly where y > 1/2], the latter meant for "logistic". `kind`
    is the loss's number, z, y (N, O), numbers (O,) -> dz (N, O), totals (2,) or more. dz may be z itself."""

    backprop_relu: Callable[..., None]
    """backprop_relu(dz, W, a, out). out = (dz W^T) * (a > 0). dz (N, O), W (H, O), a (N, H) -> out (N, H). Where a
    is not above 0, a NaN or an infinity of dz W^T may become 0 or stay NaN."""

    backprop: Callable[..., None]
    """backprop(kind, dz, W, z, a, out). out = (dz W^T) * f'(z). dz (N, O), W (H, O), z, a (N, H) -> out (N, H)."""

    weight_gradient: Callable[..., None]
    """weight_gradient(a, dz, dW, db, add). dW = a^T dz and db = column sums of dz, or added to dW and db where `add`.
    a (N, H), dz (N, O) -> dW (H, O), db (O,)."""

    update: Callable[..., None]
    """update(rule, w, g, s, h). One of the rules of `fastmlp.optimizers` over parameters, in one pass.
    w (P,), g (P,), s (S, P), h the step's numbers."""

    add_squares: Callable[..., None]
    """add_squares(w, factor, out). out += factor * (sum of w^2), summed in float64. w (P,) -> out (1,) float64."""

    clip: Callable[..., None]
    """clip(g, longest). g *= min(1, longest / |g|), |g| the Euclidean norm. g (P,)."""


@dataclass(frozen=True)
class Rows:
    """Labelled rows where the backend computes, and which of them count, in which order."""

    X: Array  # (M, I), uint8 or the network's floating type
    y: Array  # (M,) int32, class indices, or (M, O) targets of the network's type
    index: np.ndarray | None = None  # (N,) rows to use; None is all of them, as they stand
    weight: Array | None = None  # (N,) of the network's type: how much each row counts, in the order of visits

    def __len__(self) -> int:
        return len(self.y if self.index is None else self.index)


class Totals(NamedTuple):
    """What an epoch adds up to, each batch's part taken before its own step."""

    loss: float  # mean over the rows, without the penalty
    accuracy: float  # share of right answers; without meaning where nothing is classified
    penalty: float  # mean over the rows of l2 / 2 times the sum of squared weights


class Learner(Protocol):
    """Moves the parameters of a plan, and keeps the optimizer's state."""

    steps: int  # taken so far
    state: Array  # (S, P) the optimizer's, zeros at the start; whoever writes it goes on where another learner was

    def prepare(self, rows: Rows, batch_size: int) -> None:
        """Make buffers and compile what `epoch` needs, so that the first one takes as long as the others."""

    def epoch(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> Totals:
        """One pass over `rows` in batches, one step each.

        rates (steps,) is the learning rate of each step, l2 (steps,) the factor of the weights in its gradient: the
        penalty's strength over the rows of the batch.
        """

    def epochs(self, rows: Rows, batch_size: int, rates: np.ndarray, l2: np.ndarray | None = None) -> list[Totals]:
        """E passes over N rows, as by `epoch` one after the other, for less than that where they are short.

        rates, l2 (E, steps). The rows' index (E * N,), and their weight (E * N,) where they have one, hold those of all
        passes in turn. On the GPU the index may be None, for all rows as they stand in each pass; weight is (N,) then.
        """

    def gradient(self, rows: Rows) -> tuple[float, np.ndarray]:
        """Mean loss over all `rows` and its gradient (P,), on the host; nothing moves and nothing is left out."""


class Plan(Protocol):
    """One network on one backend: every buffer it needs, made once."""

    parameters: Array  # (P,) as `fastmlp.network.layer_views` lays them out: the array it works in

    def logits(self, X: np.ndarray) -> np.ndarray:
        """The last layer's z of host rows X (N, I), uint8 or the network's type -> (N, O), a new host array."""

    def probabilities(self, X: np.ndarray) -> np.ndarray:
        """The softmax of `logits`; see `fastmlp.network.softmax`."""

    def evaluate(self, rows: Rows) -> tuple[float, float]:
        """Mean loss and accuracy over `rows`."""

    def learner(self, optimizer: Optimizer, settings: Settings) -> Learner:
        """What moves the parameters by the optimizer's rule."""


class Backend(ABC):
    """Where arrays live and which operations run on them. A subclass is abstract or final, never both.

    Raises
    ------
    Exception
        From the constructor, whatever its kind, if the backend cannot compute here; the message is the reason shown.
    """

    name: ClassVar[str]
    ops: Ops
    precisions: tuple[str, ...] = ("float32", "float64")  # that a plan can compute in
    refusals: Mapping[str, str] = MappingProxyType({})  # of precisions that it would have elsewhere: why not here

    @abstractmethod
    def asarray(self, host: np.ndarray) -> Array:
        """`host` where the backend computes: the array itself on a CPU, a copy on a GPU."""

    @abstractmethod
    def to_host(self, array: Array) -> np.ndarray:
        """A NumPy array with the values of `array`: the array itself on a CPU, a copy from a GPU."""

    @abstractmethod
    def zeros(self, shape: int | tuple[int, ...], dtype: np.dtype) -> Array:
        """A new array of zeros where the backend computes."""

    @abstractmethod
    def tile_rows(self, sizes: Sequence[int]) -> int:
        """Rows to take through a net of layer `sizes` at a time: as many as pay, few enough for the caches."""

    @abstractmethod
    def plan(self, network: Network, parameters: np.ndarray, threads: int | None, precision: str | None = None) -> Plan:
        """A network on at most `threads` CPU threads.

        `parameters` (P,), as `fastmlp.network.layer_views` lays them out, are the start and set the floating type;
        `precision`, one of `precisions`, may say that products take operands of fewer bits.
        """

    @abstractmethod
    def limit_threads(self, threads: int | None) -> AbstractContextManager[Any]:
        """A context in which a library's threads are at most `threads`; None leaves the library's own choice."""

    @abstractmethod
    def describe(self, threads: int | None = None) -> dict[str, Any]:
        """What runs, for the report: "blas" (what multiplies) or "device", "threads" (of the CPU) and "versions"."""


class HostBackend(Backend):
    """A backend that computes in NumPy's own arrays."""

    def asarray(self, host: np.ndarray) -> np.ndarray:
        """`host` itself. Raises DataError if it lies on a GPU."""
        refuse_on_cpu(host, self.name)
        return host

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """`array` itself."""
        return array

    def zeros(self, shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """A new array of zeros."""
        return np.zeros(shape, dtype)

    def tile_rows(self, sizes: Sequence[int]) -> int:
        """Rows whose numbers take about 16 MB: large enough to feed a BLAS, small beside the data."""
        return max(64, 2**22 // (sizes[0] + 2 * sum(sizes[1:])))
