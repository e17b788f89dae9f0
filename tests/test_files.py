"""Writing files so that nothing already there is harmed."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from fastmlp import OptionError
from fastmlp.files import check_writable, current_umask, write_beside_and_rename


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_writes_a_new_file_and_replaces_an_old_one(tmp_path):
    path = tmp_path / "model"
    write_beside_and_rename(path, b"one")
    assert path.read_bytes() == b"one"
    write_beside_and_rename(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["model"]


def test_the_file_has_the_usual_permissions(tmp_path):
    mask = os.umask(0o022)
    try:
        write_beside_and_rename(tmp_path / "model", b"")
        assert current_umask() == 0o022
        assert current_umask() == 0o022
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o644


def break_writing(monkeypatch, where):
    """Make one of the steps of writing fail."""

    def fail(*args, **options):
        raise OSError(28, "No space left on device")

    if where == "write":
        real = os.fdopen

        def fdopen(descriptor, mode):
            file = real(descriptor, mode)

            class Full:
                __enter__ = lambda self: self  # noqa: E731
                __exit__ = lambda self, *error: file.close()  # noqa: E731
                write = fail

            return Full()

        monkeypatch.setattr(os, "fdopen", fdopen)
    else:
        monkeypatch.setattr(Path, where, fail)


@pytest.mark.parametrize("where", ["write", "chmod", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch, where):
    path = tmp_path / "model"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        break_writing(patch, where)
        with pytest.raises((OSError, OptionError), match="No space left"):
            write_beside_and_rename(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["model"]


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(OptionError, match="expected the name of an ordinary file, got a folder"):
        write_beside_and_rename(tmp_path, b"")


def test_a_missing_folder_is_refused_and_not_made(tmp_path):
    with pytest.raises(OptionError, match=r"there is no folder .*create it first"):
        write_beside_and_rename(tmp_path / "none" / "model", b"")
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    with pytest.raises(OptionError, match=r"Permission denied .*choose another folder"):
        check_writable(tmp_path / "model")


def test_asking_writes_nothing(tmp_path):
    assert check_writable(tmp_path / "model") == tmp_path / "model"
    assert names(tmp_path) == []
