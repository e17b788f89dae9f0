"""Writing files so that nothing already there is harmed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from fastmlp.errors import OptionError


def check_writable(path: str | os.PathLike[str]) -> Path:
    """`path`, if a file could be written there; asked before long work, so that its result is not lost.

    Raises
    ------
    OptionError
        The folder is missing or not writable, or the path is a folder itself.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise OptionError(f"cannot write {path}: expected the name of an ordinary file, got {kind}; name another file")
    if not path.parent.is_dir():
        raise OptionError(f"cannot write {path}: there is no folder {path.parent}; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise OptionError(f"cannot write {path}: {error.strerror} in {path.parent}; choose another folder") from error
    return path


def write_beside_and_rename(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path` so that at every moment the old file or the whole new one stands there."""
    path = check_writable(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        beside.chmod(0o666 & ~current_umask())  # mkstemp makes files that only their owner can read
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def current_umask() -> int:
    """The process's umask; the only way to read it is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
