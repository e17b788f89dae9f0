"""The command line as a whole: help, version, pipes, and what every command does with a message."""

import importlib.metadata
import inspect
import subprocess
import sys

import pytest
from command import NUMPY, SMALL, refuse, run, start
from typer.testing import CliRunner

import fastmlp
from fastmlp import cli, data
from fastmlp.cli import datasets, messages, options


def test_alone_it_shows_help():
    shown = run().stdout
    assert all(command in shown for command in ("train", "predict", "evaluate", "info", "bench", "--version"))


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("command", [(), ("train",), ("predict",), ("evaluate",), ("info",), ("bench",)])
def test_help(command, flag):
    assert "Usage: fastmlp" in run(*command, flag).stdout


def test_version():
    assert run("--version").stdout == f"fastmlp {importlib.metadata.version('fastmlp')}\n"


def test_defaults_are_those_of_train():
    library, command = inspect.signature(fastmlp.train).parameters, inspect.signature(cli.train).parameters
    shared = set(library) & set(command)
    assert shared >= {"hidden", "epochs", "batch_size", "optimizer", "beta", "precision", "seed", "backend", "threads"}
    for name in shared - {"hidden", "batch_size"}:
        assert command[name].default == library[name].default, name
    assert options.parse_hidden(command["hidden"].default) == library["hidden"].default
    assert options.parse_batch_size(command["batch_size"].default) == library["batch_size"].default


def test_import_of_the_package_leaves_the_command_line_alone():
    code = "import sys, fastmlp; print({'typer', 'rich', 'fastmlp.cli', 'fastmlp.bench'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_in_a_pipe_there_are_plain_lines_and_no_escape_codes(flowers):
    process = start("train", flowers, *SMALL)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0
    assert "\x1b" not in out + err
    assert [line.split("  ")[0] for line in err.splitlines()] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "network     4-8-3, trained on 72 rows of" in out


def test_a_closed_pipe_is_quiet(flowers, model):
    with start("predict", model, flowers) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(100) == messages.PIPE_CLOSED


def test_a_closed_standard_output_takes_nothing(flowers, model):
    code = "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'fastmlp', *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", model, flowers, *NUMPY], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_real_bug_keeps_its_traceback(monkeypatch, flowers):
    monkeypatch.setattr(fastmlp, "train", lambda *args, **options: 1 / 0)
    result = CliRunner().invoke(cli.app, ["train", str(flowers)])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("text", ["two\nlines", "\x1b[31mred", "bell\x07", "half \udcff", "\u202eright to left"])
def test_no_message_can_command_the_terminal(monkeypatch, flowers, text):
    def broken(*args, **options):
        raise data.DataError(text)

    monkeypatch.setattr(datasets, "read", broken)
    message = refuse("train", flowers).stderr
    assert message.rstrip("\n").isprintable()
