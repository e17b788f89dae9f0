"""`fastmlp ARGS`, run in this process or in one of its own, and what the tests of the command line give it."""

import csv
import os
import subprocess
import sys

from typer.testing import CliRunner

from fastmlp import backends, cli

NUMPY = ("--backend", "numpy")
SMALL = (*NUMPY, "--hidden", "8", "--epochs", "3", "--batch-size", "16")


def run(*args, code=0):
    """`fastmlp ARGS` in this process; fails on another exit code or on an escaped exception."""
    result = CliRunner(env={"COLUMNS": "100"}).invoke(cli.app, [str(arg) for arg in args], prog_name="fastmlp")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert result.exit_code == code, result.output
    return result


def refuse(*args, say=()):
    """`fastmlp ARGS` is refused: exit code 2, nothing on stdout, one line on stderr that has all of `say`."""
    result = run(*args, code=2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: ")
    assert not [words for words in say if words not in result.stderr], result.stderr
    return result


def start(*args, **options):
    """`python -m fastmlp ARGS` as a process of its own."""
    env = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    command = [sys.executable, "-m", "fastmlp", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, **options)


def write_csv(path, X, y=None, target="label"):
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*"abcdefghi"[: X.shape[1]], *([target] if y is not None else [])])
        writer.writerows([*map(float, row), *([y[n]] if y is not None else [])] for n, row in enumerate(X))


def numba_is_broken(monkeypatch):
    load = backends.load
    monkeypatch.setattr(backends, "load", lambda name: "OSError: no room" if name == "numba" else load(name))
