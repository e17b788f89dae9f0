"""What a person sees: on a terminal, in a pipe, and how well classes are told apart."""

import os
import re
import struct
import sys

import numpy as np
import pytest
from rich.console import Console

from fastmlp import progress
from fastmlp.history import History

pty = pytest.importorskip("pty", reason="no pseudo-terminals here")


def history_of(epochs, validated=True):
    """What there is to show after so many epochs."""
    history = History()
    for i in range(epochs):
        history.append((1 / (i + 1), i / 100), (2.0, 0.5 + (i == 1) / 4) if validated else None, 0.25)
    return history


def shown(renderable, width=80):
    console = Console(width=width, file=open(os.devnull, "w"), record=True)  # noqa: SIM115, PTH123
    with console.file:
        console.print(renderable)
        return console.export_text()


@pytest.fixture
def terminal(monkeypatch):
    """Makes standard error a terminal of the given size; returns what it was sent, when asked."""
    opened = []

    def make(rows=24, columns=80):
        import fcntl
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        file = os.fdopen(theirs, "w")
        opened.extend([file, ours])
        monkeypatch.setattr(sys, "stderr", file)
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(rows))

        def sent():
            file.flush()
            os.set_blocking(ours, False)
            text = b""
            try:
                while piece := os.read(ours, 65536):
                    text += piece
            except BlockingIOError:
                return text.decode()
            return text.decode()

        return sent

    yield make
    for each in opened:
        os.close(each) if isinstance(each, int) else each.close()


def plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_line_with_and_without_validation():
    assert progress.line(history_of(2), 9) == (
        "epoch 2/9  loss 0.5000  accuracy 0.0100  validation loss 2.0000  accuracy 0.7500  0.25 s"
    )
    assert progress.line(history_of(1, validated=False), 9) == "epoch 1/9  loss 1.0000  accuracy 0.0000  0.25 s"


def test_table_holds_the_newest_epochs():
    lines = shown(progress.table(history_of(30), 3)).splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "28", "29", "30"]
    assert lines[-1].split() == ["30", "0.0333", "0.2900", "2.0000", "0.5000", "0.25"]


def test_table_without_validation_has_no_such_columns():
    assert "val." not in shown(progress.table(history_of(3, validated=False)))


def test_table_marks_the_best_validation_accuracy():
    cells = list(progress.table(history_of(3)).columns[4].cells)
    assert ["green" in cell for cell in cells] == [False, True, False]


def test_table_fits_80_columns():
    assert max(map(len, shown(progress.table(history_of(20))).splitlines())) < 80


def test_a_pipe_gets_a_line_an_epoch_if_wanted(capsys):
    with progress.live_table(2, True) as show:
        show(history_of(1))
        show(history_of(2))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [progress.line(history_of(n), 2) for n in (1, 2)]


@pytest.mark.parametrize("wanted", [None, False])
def test_a_pipe_is_quiet_otherwise(capsys, wanted):
    with progress.live_table(2, wanted) as show:
        show(history_of(1))
    assert capsys.readouterr() == ("", "")


def test_a_terminal_is_quiet_if_nothing_is_wanted(terminal):
    sent = terminal()
    with progress.live_table(2, False) as show:
        show(history_of(1))
    assert sent() == ""


@pytest.mark.parametrize("wanted", [None, True])
def test_a_terminal_gets_a_live_table(terminal, wanted):
    sent = terminal()
    with progress.live_table(2, wanted) as show:
        show(history_of(1))
        show(history_of(2))
    text = sent()
    assert "\x1b[?25l" in text  # the cursor hides, and
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # comes back
    last = plain(text).splitlines()
    assert [line.split()[0] for line in last[-3:-1]] == ["1", "2"]
    assert "2/2" in last[-1]


@pytest.mark.parametrize("columns", [50, 60, 80])
def test_the_echo_of_ctrl_c_fits_beside_the_bar(terminal, columns):
    sent = terminal(columns=columns)
    with progress.live_table(3000, None) as show:
        show(history_of(1))
    assert 40 < len(plain(sent()).splitlines()[-1]) <= columns - 3


def test_a_low_terminal_keeps_the_bar_in_sight(terminal):
    sent = terminal(rows=8)
    with progress.live_table(40, None) as show:
        for n in range(1, 31):
            show(history_of(n))
    last = plain(sent()).splitlines()
    assert [line.split()[0] for line in last[-6:-1]] == ["epoch", "27", "28", "29", "30"]
    assert "30/40" in last[-1]


def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    sent = terminal()
    monkeypatch.setenv("TERM", "dumb")
    with progress.live_table(2, True) as show:
        show(history_of(1))
    assert sent().splitlines() == [progress.line(history_of(1), 2)]


def test_the_cursor_comes_back_after_an_error(terminal):
    sent = terminal()
    with pytest.raises(RuntimeError), progress.live_table(2, None) as show:
        show(history_of(1))
        raise RuntimeError
    text = sent()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


def test_a_message_goes_above_the_live_table(terminal):
    sent = terminal()
    with progress.live_table(2, None) as show:
        show(history_of(1))
        progress.say("warning", "yellow", "mind the gap")
    lines = plain(sent()).splitlines()
    (said,) = (n for n, line in enumerate(lines) if "mind the gap" in line)
    assert "1/2" in lines[-1]
    assert said < len(lines) - 2


def test_messages_are_coloured_on_a_terminal_only(terminal, capsys):
    progress.say("error", "red", "a [bold]bracket[/]")
    assert capsys.readouterr().err == "error: a [bold]bracket[/]\n"
    sent = terminal()
    progress.say("error", "red", "x")
    assert "\x1b[31m" in sent()


def test_an_error_of_the_system_names_its_file(capsys):
    progress.say("error", "red", PermissionError(13, "Permission denied", "secret.csv"))
    assert capsys.readouterr().err == "error: secret.csv: Permission denied; check the path and its permissions\n"


def test_facts_are_whole_lines_in_a_pipe(capsys):
    progress.fact("wrote", "long/" * 60)
    assert capsys.readouterr().out == f"wrote       {'long/' * 60}\n"


def test_the_spinner_shows_on_a_terminal_only(terminal, capsys):
    with progress.working("reading [red]x"):
        pass
    assert capsys.readouterr() == ("", "")
    sent = terminal()
    with progress.working("reading"):
        pass
    assert "reading" in sent()


def test_class_table_by_hand():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 2, 4]])  # class "b" never comes
    lines = [line.split() for line in shown(progress.class_table(np.array(["a", "b", "c"]), confusion)).splitlines()]
    assert lines[1] == ["a", "4", "1.0000", "0.7500", "0.8571", "b", "(1)"]
    assert lines[2] == ["b", "0", "0.0000", "-", "0.0000"]
    assert lines[3] == ["c", "6", "1.0000", "0.6667", "0.8000", "b", "(2)"]


def test_class_table_shows_hostile_labels_as_they_are():
    text = shown(progress.class_table(np.array(["[red]x", "\x1b[31m"]), np.eye(2, dtype=int)))
    assert "[red]x" in text
    assert "\x1b" not in text
