"""How a command ends: refusals and warnings as one line each, and the exit codes."""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from typer.core import TyperGroup

from fastmlp.errors import BackendUnavailable, DataError, ModelFileError, OptionError, TrainingDiverged
from fastmlp.progress import say

REFUSALS = (DataError, OptionError, ModelFileError, BackendUnavailable, TrainingDiverged, OSError, MemoryError)
WRONG, REFUSED, INTERRUPTED, PIPE_CLOSED = 1, 2, 130, 141  # exit codes


class Commands(TyperGroup):
    """The group of all commands: remembers the command line, and turns refusals into one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the arguments for the report."""
        ctx.meta["command"] = shlex.join(["fastmlp", *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with plain_messages():
            return super().invoke(ctx)


@contextmanager
def plain_messages() -> Iterator[None]:
    """Bad input, and warnings, as one line on standard error; a closed pipe and Ctrl-C end quietly."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module="fastmlp")
        warnings.showwarning = lambda message, *_: say("warning", "yellow", message)
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            with suppress(OSError, ValueError):  # what is left to flush at exit goes nowhere
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except typer.BadParameter as error:
            where = error.ctx.command_path if error.ctx else "fastmlp"
            say("error", "red", f"{error.format_message().rstrip('.')}; see {where} --help")
            raise typer.Exit(REFUSED) from None
        except REFUSALS as error:
            say("error", "red", error)
            raise typer.Exit(REFUSED) from None
