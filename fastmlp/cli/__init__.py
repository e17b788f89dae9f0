"""The command line: ``fastmlp train``, ``predict``, ``evaluate``, ``info`` and ``bench``."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from fastmlp.cli.machine import bench, info
from fastmlp.cli.messages import Commands
from fastmlp.cli.prediction import evaluate, predict
from fastmlp.cli.training import train

app = typer.Typer(
    cls=Commands, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.callback(invoke_without_command=True)
def overview(
    ctx: typer.Context,
    show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit")] = False,
) -> None:
    """Dense networks, trained at the speed of the hardware at hand."""
    if show_version:
        print(f"fastmlp {version('fastmlp')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(ctx.get_help(), end="")


for command in (train, predict, evaluate, info, bench):
    app.command()(command)


def main() -> None:
    """Run the command line and exit."""
    if sys.stdout is None:  # closed by whoever started this: what would be written there goes nowhere
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
    app(prog_name="fastmlp")
