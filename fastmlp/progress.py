"""What a person sees while a network learns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from fastmlp.history import History
    from fastmlp.model import Model

SHOWN = 12  # epochs the live table holds: it must fit on a small terminal


def line(model: Model, epochs: int) -> str:
    """The newest epoch as one plain line, for pipes and log files."""
    last = model.history.last()
    text = f"epoch {len(model.history)}/{epochs}  loss {last['train_loss']:.4f}  accuracy {last['train_accuracy']:.4f}"
    if "validation_loss" in last:
        text += f"  validation loss {last['validation_loss']:.4f}  accuracy {last['validation_accuracy']:.4f}"
    return text + f"  {last['seconds']:.2f} s"


def table(history: History) -> Table:
    """The newest epochs as a table; the best validation accuracy so far stands out."""
    from rich.table import Table

    validated = bool(history.validation_loss)
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("epoch", "loss", "accuracy", *(["val. loss", "val. accuracy"] if validated else []), "seconds"):
        grid.add_column(name, justify="right")
    for i in range(max(0, len(history) - SHOWN), len(history)):
        cells = [str(i + 1), f"{history.train_loss[i]:.4f}", f"{history.train_accuracy[i]:.4f}"]
        if validated:
            accuracy = history.validation_accuracy[i]
            mark = "[bold green]" if accuracy == max(history.validation_accuracy) else ""
            cells += [f"{history.validation_loss[i]:.4f}", f"{mark}{accuracy:.4f}"]
        grid.add_row(*cells, f"{history.seconds[i]:.2f}")
    return grid


@contextmanager
def live_table(epochs: int, wanted: bool | None) -> Iterator[Callable[[Model], None]]:
    """A live table and a progress bar on standard error; yields the callback that feeds them.

    `wanted` None shows them on a terminal only.
    """
    if not (sys.stderr.isatty() if wanted is None else wanted):
        yield lambda model: None
        return
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    bar = Progress(
        SpinnerColumn(), "epoch", MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    task = bar.add_task("epochs", total=epochs)
    with Live(bar, console=console, refresh_per_second=8) as display:

        def show(model: Model) -> None:
            bar.advance(task)
            display.update(Group(table(model.history), bar))

        yield show
