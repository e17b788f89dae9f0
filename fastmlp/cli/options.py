"""The options of the command line: their types and help, what their text means, and what is refused before work."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import fastmlp
from fastmlp import backends
from fastmlp.activations import ACTIVATIONS
from fastmlp.errors import OptionError
from fastmlp.files import check_writable
from fastmlp.optimizers import DECAY
from fastmlp.options import SCHEDULES

DEFAULTS = {name: option.default for name, option in inspect.signature(fastmlp.train).parameters.items()}
NETWORK, OUTPUT = "Network and training", "Output"
SOURCES = "'mnist', a folder of IDX files, or a .csv, .csv.gz, .npz or .npy file"


def option(panel: str, metavar: str, help: str, default: str | bool = True) -> Any:
    """An option in a panel of the help page; `default` is shown in place of the real one where given."""
    return typer.Option(metavar=metavar, help=help, rich_help_panel=panel, show_default=default)


Data = Annotated[str, typer.Argument(metavar="DATA", help=SOURCES)]
ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="A model file, written by train --save")]
Target = Annotated[str | None, option("Data", "COLUMN", "Label column of a CSV", "label")]
Labels = Annotated[str | None, option("Data", "FILE.npy", "Labels that go with a .npy file of rows")]
BackendName = Annotated[str, option("Computing", "NAME", f"What computes: {', '.join(backends.NAMES)}")]
Threads = Annotated[int | None, option("Computing", "N", "CPU threads at most", "the library's choice")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail, not fall back, where the backend cannot run",
                                      rich_help_panel="Computing")]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines")]

Activation = Annotated[str, option(NETWORK, "NAME", f"Of hidden layers, one or one each, as relu,tanh: "
                                                    f"{', '.join(ACTIVATIONS)}")]  # fmt: skip
Dropout = Annotated[float, option(NETWORK, "SHARE", "Hidden units to leave out in each step")]
L2 = Annotated[float, option(NETWORK, "L2", "Strength of the penalty on squared weights")]
WeightDecay = Annotated[float | None, option(NETWORK, "DECAY", "Of adamw", str(DECAY))]
Clip = Annotated[float | None, option(NETWORK, "LENGTH", "Longest gradient that is let through", "none")]
ScheduleName = Annotated[str, option(NETWORK, "NAME", f"Of the learning rate: {', '.join(SCHEDULES)}")]
Warmup = Annotated[float, option(NETWORK, "EPOCHS", "Over which the learning rate rises from 0")]
Smoothing = Annotated[float, option(NETWORK, "SHARE", "Of each target to spread over all classes")]


def check_outputs(outputs: dict[str, Path | None], inputs: Sequence[str | Path | None]) -> None:
    """Refuse, before long work, outputs that cannot be written, that are one file, or that would replace an input."""
    known = {str(source): Path(source).expanduser() for source in inputs if source is not None}
    for name, path in outputs.items():
        if path is None:
            continue
        check_writable(path)
        for other, taken in known.items():
            idx = taken.is_dir() and path.resolve().parent == taken.resolve() and "ubyte" in path.name
            if idx or path.resolve() == taken.resolve() or (path.exists() and taken.exists() and path.samefile(taken)):
                raise OptionError(
                    f"{name} {path}: expected a file of its own, but {other} is the same; name another file"
                )
        known[name] = path


def parse_hidden(text: str) -> tuple[int, ...]:
    """Units of each hidden layer from text such as "512,512"; none from an empty one. Raises OptionError."""
    try:
        return tuple(int(units) for units in text.split(",")) if text.strip() else ()
    except ValueError:
        raise OptionError(f"--hidden: expected whole numbers with commas between, as 512,512; got {text!r}") from None


def parse_activation(text: str) -> str | tuple[str, ...]:
    """One name for all hidden layers, or one each from text such as "relu,tanh"."""
    names = tuple(name.strip() for name in text.split(","))
    return names if len(names) > 1 else names[0]


def parse_batch_size(text: str | None) -> int | str | None:
    """A number of rows, "full", or None for train's own choice. Raises OptionError."""
    try:
        return text if text in ("full", None) else int(text)
    except ValueError:
        raise OptionError(f"--batch-size: expected a whole number from 1, or 'full'; got {text!r}") from None
