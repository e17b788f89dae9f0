"""How much rows count: sample weights, spread over the batches of an epoch, with the penalty's share."""

from __future__ import annotations

import numpy as np

from fastmlp.errors import DataError


class BatchWeights:
    """Weights of rows and strengths of the L2 penalty for the batches of an epoch.

    The gradient of a batch is sum of w dloss / sum of w + alpha W / sum of w. The network divides by the rows of a
    batch, n; so a row's weight becomes w n / (sum of w over its batch).
    """

    def __init__(self, n: int, batch_size: int, alpha: float, weight: np.ndarray | None, dtype: np.dtype):
        self.starts = np.arange(0, n, batch_size)  # (steps,)
        self.counts = np.diff(np.append(self.starts, n))  # (steps,) rows of each batch
        self.alpha, self.weight, self.dtype = alpha, weight, dtype
        self.plain = alpha / self.counts if alpha else None  # (steps,)

    def arranged(self, order: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Weights (N,) in the order of visits, their mean 1 in each batch, and strengths (steps,); None for all 1 or 0.

        Raises DataError if all rows of a batch weigh nothing.
        """
        if self.weight is None:
            return None, self.plain
        weight = self.weight if order is None else self.weight[order]  # (N,)
        sums = np.add.reduceat(weight, self.starts)  # (steps,)
        if not sums.all():
            raise DataError(
                "sample_weight: expected a weight above 0 in each batch; the weights of a batch sum to 0: leave out "
                "rows of weight 0, or take a larger batch_size"
            )
        scaled = weight * np.repeat(self.counts / sums, self.counts)  # (N,)
        return scaled.astype(self.dtype, copy=False), self.alpha / sums if self.alpha else None
