"""Pictures of a training run. Needs matplotlib: ``pip install "fastmlp[plot]"``."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from fastmlp.errors import OptionError
from fastmlp.files import write_beside_and_rename

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastmlp.history import History

FORMATS = (".png", ".svg", ".pdf")


def check_plot_path(path: str | os.PathLike[str]) -> None:
    """Refuse, before long work, a plot that could not be made. Raises OptionError."""
    if Path(path).suffix not in FORMATS:
        raise OptionError(f"plot {path}: expected a name ending in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise OptionError("plots need matplotlib: pip install 'fastmlp[plot]'") from error


def plot_history(history: History, path: str | os.PathLike[str] | None = None) -> Figure:
    """Two panels, loss and accuracy by epoch, training and validation in each; written to `path` if given.

    Where no accuracy was measured, the score that was takes its place, or there is one panel.
    """
    if path is not None:
        check_plot_path(path)
    from matplotlib.figure import Figure  # not pyplot: no window, no global state
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    names = ["loss", "accuracy"]
    if len(history) and not history.train_accuracy:
        names = ["loss", "score"] if history.validation_score else ["loss"]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for part, style in (("train", "--"), ("validation", "-")):
            values = getattr(history, f"{part}_{name}", None)
            if values:
                epochs = range(1, len(values) + 1)
                axes.plot(epochs, values, style, marker="o", markersize=3, label=f"{part} {values[-1]:.4f}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if len(history):
            axes.legend(title="last epoch")
    if path is not None:
        picture = io.BytesIO()
        figure.savefig(picture, format=Path(path).suffix[1:], dpi=150)
        write_beside_and_rename(path, picture.getvalue())
    return figure
