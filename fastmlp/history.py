"""What training saw, epoch by epoch."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from fastmlp.files import write_beside_and_rename

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]


@dataclass
class History:
    """One entry an epoch in each list; lists of what was never measured stay empty.

    NaN stands where an epoch did not measure what another did.

    Training loss and accuracy are means over the epoch's batches, each taken before its own step, as scikit-learn's
    ``loss_curve_`` is. Validation is measured after the epoch. Seconds count training alone.
    """

    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    validation_score: list[float] = field(default_factory=list)  # what an estimator's early stopping goes by
    seconds: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.train_loss)

    def append(
        self, train: Sequence[float | None], validation: Sequence[float | None] | None, seconds: float | None
    ) -> None:
        """Add an epoch: `train` (loss, accuracy), `validation` (loss, accuracy) or (loss, accuracy, score).

        None stands for what was not measured.
        """
        named = {"seconds": seconds}
        named |= zip(("train_loss", "train_accuracy"), train, strict=False)
        named |= zip(("validation_loss", "validation_accuracy", "validation_score"), validation or (), strict=False)
        epochs = len(self)
        for name, values in vars(self).items():
            value = named.get(name)
            if value is not None:
                values += [math.nan] * (epochs - len(values))
                values.append(value)
            elif values:
                values.append(math.nan)

    def last(self) -> dict[str, float]:
        """The newest epoch, by name of the list; without the validation entries where there are none."""
        return {name: values[-1] for name, values in asdict(self).items() if values}

    def to_json(self, path: Path | None = None) -> str:
        """The lists as a JSON object; written to `path` if given."""
        text = json.dumps(asdict(self), indent=1)
        if path is not None:
            write_beside_and_rename(path, text.encode())
        return text

    def to_csv(self, path: Path | None = None) -> str:
        """A line an epoch, counted from 1, below a line of names; written to `path` if given."""
        columns = {name: values for name, values in asdict(self).items() if values}
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["epoch", *columns])
        for epoch, row in enumerate(zip(*columns.values(), strict=True), 1):
            writer.writerow([epoch, *row])
        if path is not None:
            write_beside_and_rename(path, out.getvalue().encode())
        return out.getvalue()

    def plot(self, path: Path | None = None) -> Figure:
        """Loss and accuracy by epoch, as a matplotlib figure; written to `path` (.png, .svg or .pdf) if given."""
        from fastmlp.plots import plot_history

        return plot_history(self, path)
