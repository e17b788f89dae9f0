"""What the tests of the CPU kernels share: Python programs of their own, in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def start():
    """Call it with Python code, words for sys.argv and environment variables; None removes one. Returns the process."""

    def popen(code, *words, folders=(), **variables):
        path = [*map(str, folders), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        new = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **variables}
        new = {name: str(value) for name, value in new.items() if value is not None}
        command = [sys.executable, "-P", "-W", "error", *(["-c", code] if isinstance(code, str) else [str(code)])]
        return subprocess.Popen(
            [*command, *map(str, words)], env=new, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return popen


@pytest.fixture(scope="session")
def finish():
    """Call it with a process of `start`: waits for it, and returns what it printed if it ended well."""

    def wait(process, seconds=120):
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
        return out

    return wait


@pytest.fixture(scope="session")
def program(start, finish):
    """Call it like `start`; waits for the end and returns what was printed."""
    return lambda *arguments, **variables: finish(start(*arguments, **variables))
