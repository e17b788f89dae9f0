"""A process for each library."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import NamedTuple

from rich.console import Console

from .process import Process
from .work import Library


class Started(NamedTuple):
    """What can be run here, and what cannot."""

    processes: dict[str, Process]  # by library
    missing: dict[str, str]  # the reasons, by library

    def versions(self) -> dict[str, str]:
        """Of everything that runs."""
        return {name: text for process in self.processes.values() for name, text in process.call("versions").items()}


def start(modules: Mapping[str, str], console: Console, stack: ExitStack) -> Started:
    """Start a process for each library, given with its module; they end with `stack`."""
    found = Started({}, {})
    for library, module in modules.items():
        process = Process(library, Library, library, module)
        stack.callback(process.close)
        reason = process.call("missing")
        if reason:
            found.missing[library] = reason
            console.print(f"{library} is not run: {reason}")
        else:
            found.processes[library] = process
    return found
