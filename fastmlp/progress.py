"""What a person sees: messages, what a network learns while it learns, how well it tells classes apart."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table

    from fastmlp.history import History

SHOWN = 12  # epochs the live table holds at most
AROUND = 4  # lines of the terminal that the table leaves free: its header, the bar, the prompt


def on_terminal() -> bool:
    """Whether standard error can redraw what it shows: a terminal, and not one that calls itself dumb."""
    return sys.stderr.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def say(kind: str, style: str, message: object) -> None:
    """One line on standard error, whatever the message holds."""
    if isinstance(message, OSError) and message.filename is not None and message.strerror:
        message = f"{message.filename}: {message.strerror}; check the path and its permissions"
    elif isinstance(message, MemoryError):
        message = f"not enough memory: {message}; use fewer hidden units, a smaller batch or fewer rows"
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.capture() as line:
        console.print(Text.assemble((f"{kind}: ", f"bold {style}"), (clean(message), style)), soft_wrap=True)
    sys.stderr.write(line.get())  # not by the console: a live table must see it, to make room for it


def clean(message: object) -> str:
    """The message on one line, with nothing in it that a terminal would obey: it may quote a hostile file."""
    text = " ".join(str(message).splitlines())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def fact(name: str, value: object) -> None:
    """A line of a summary on standard output; only a terminal wraps it, so that a pipe gets whole paths."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, head, tail = Console(highlight=False), Text(f"{name:<11}", "bold"), Text(clean(value))
    if not console.is_terminal:
        return console.print(head, tail, soft_wrap=True)
    grid = Table.grid(padding=(0, 1))
    grid.add_row(head, tail)
    console.print(grid)


def working(text: str) -> AbstractContextManager[object]:
    """A spinner with a text while a terminal would otherwise stand still."""
    from rich.console import Console

    return Console(stderr=True).status(text) if on_terminal() else nullcontext()


# Lists of a history that are shown, with what stands before each in a line and above it in the table.
NAMES = {
    "train_loss": ("  loss", "loss"),
    "train_accuracy": ("  accuracy", "accuracy"),
    "validation_loss": ("  validation loss", "val. loss"),
    "validation_accuracy": ("  accuracy", "val. accuracy"),
    "validation_score": ("  score", "val. score"),
}


def line(history: History, epochs: int) -> str:
    """The newest epoch as one plain line, for pipes and log files."""
    last = history.last()
    text = "".join(f"{name} {last[key]:.4f}" for key, (name, _) in NAMES.items() if key in last)
    return f"epoch {len(history)}/{epochs}{text}  {last['seconds']:.2f} s"


def table(history: History, shown: int = SHOWN) -> Table:
    """The newest epochs, `shown` at most, as a table; the best validation accuracy so far stands out."""
    from rich.table import Table

    columns = {key: getattr(history, key) for key in NAMES if len(getattr(history, key)) == len(history)}
    best = max(history.validation_accuracy, default=0.0)
    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("epoch", *(NAMES[key][1] for key in columns), "seconds"):
        grid.add_column(name, justify="right")
    for i in range(max(0, len(history) - shown), len(history)):
        cells = [str(i + 1)]
        for key, values in columns.items():
            mark = "[bold green]" if key == "validation_accuracy" and values[i] == best else ""
            cells.append(f"{mark}{values[i]:.4f}")
        grid.add_row(*cells, f"{history.seconds[i]:.2f}")
    return grid


@contextmanager
def live_table(epochs: int, wanted: bool | None) -> Iterator[Callable[[History], None]]:
    """Progress on standard error; yields the callback that feeds it.

    A terminal gets a live table and a progress bar, anything else a plain line an epoch. `wanted` None shows progress
    on a terminal only, False nowhere.
    """
    terminal = on_terminal()
    if not terminal or wanted is False:
        yield (
            (lambda history: print(line(history, epochs), file=sys.stderr, flush=True)) if wanted else (lambda _: None)
        )
        return
    from rich.console import Console, Group
    from rich.constrain import Constrain
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
        SpinnerColumn("line" if console.options.ascii_only else "dots"),
        "epoch", MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn(),
        console=console,
    )  # fmt: skip
    task = bar.add_task("epochs", total=epochs)
    below = Constrain(
        bar, console.width - 3
    )  # room for the ^C that a terminal echoes: a wrapped line would spoil the table
    with Live(below, console=console, refresh_per_second=8) as display:

        def show(history: History) -> None:
            bar.advance(task)
            display.update(Group(table(history, max(1, min(SHOWN, console.height - AROUND))), below))

        yield show


LotShow = Callable[[int, "History"], None]  # the place of a network, and its history so far


@contextmanager
def lot_bar(epochs: Sequence[int], wanted: bool | None) -> Iterator[LotShow]:
    """Progress of several networks, of so many epochs each, on standard error; yields what each feeds after an epoch.

    A terminal gets a bar of all epochs, anything else a plain line for each network that has done its own. `wanted` is
    as in `live_table`. Threads may call at the same time.
    """
    lock, done = threading.Lock(), 0
    if not on_terminal() or wanted is False:

        def tell(place: int, history: History) -> None:
            nonlocal done
            if len(history) == epochs[place]:
                with lock:
                    done += 1
                    print(f"network {done}/{len(epochs)}  configs[{place}]  {line(history, epochs[place])}",
                          file=sys.stderr, flush=True)  # fmt: skip

        yield tell if wanted else (lambda place, history: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    bar = Progress(
        "networks done: {task.fields[networks]}", "epochs", MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(),
        "left", TimeRemainingColumn(), console=Console(stderr=True),
    )  # fmt: skip
    with bar:
        task = bar.add_task("epochs", total=sum(epochs), networks=f"0/{len(epochs)}")

        def show(place: int, history: History) -> None:
            nonlocal done
            with lock:
                done += len(history) == epochs[place]
                bar.update(task, advance=1, networks=f"{done}/{len(epochs)}")

        yield show


def class_table(classes: np.ndarray, confusion: np.ndarray) -> Table:
    """A line for each class. confusion (O, O): rows of class i that were taken for class j."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("class", "rows", "precision", "recall", "F1", "most often taken for"):
        grid.add_column(name, justify="left" if name == "class" else "right", overflow="fold")
    for i, label in enumerate(classes):
        hits, rows, predictions = confusion[i, i], confusion[i].sum(), confusion[:, i].sum()
        shares = ((hits, predictions), (hits, rows), (2 * hits, rows + predictions))
        wrong = confusion[i].copy()  # (O,)
        wrong[i] = 0
        worst = f"{classes[wrong.argmax()]} ({wrong.max()})" if wrong.any() else ""
        cells = (label, f"{rows:,}", *(f"{part / whole:.4f}" if whole else "-" for part, whole in shares), worst)
        grid.add_row(*(Text(clean(cell)) for cell in cells))
    return grid
