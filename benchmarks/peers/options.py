"""Options that several of the benchmarks' commands have."""

from pathlib import Path
from typing import Annotated

import typer

from . import machine

Most = Annotated[int | None, typer.Option("--rows", min=60, help="Rows of data at most.")]
Rounds = Annotated[int, typer.Option(min=1, help="Readings of each time.")]
Threads = Annotated[int, typer.Option(min=1, help="CPU threads in every library.")]
Keep = Annotated[bool, typer.Option("--record", help="Write a dated record.")]
Folder = Annotated[Path, typer.Option(help="Where records go.")]

THREADS = min(2, machine.cores())
