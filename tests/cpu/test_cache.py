"""Compiled code on disk: found by the next process, never stale, and no matter where it may be written."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("numba")

import fastmlp.kernels.cpu
from fastmlp.kernels.cpu import cache

import fastmlp
from fastmlp.backends import compiled, compiled_update

# Prints what a process of its own gets: the version in the names, and what its code computes.
PROGRAM = """
import json
import sys
import numpy as np
from fastmlp import backends, optimizers
from fastmlp.kernels.cpu import cache
loaded = backends.load("numba")
assert not isinstance(loaded, str), loaded
one, out, w = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32), np.zeros(1, np.float32)
if "product" in sys.argv:
    loaded.ops.affine(one, 2 * one, 3 * one[0], out, False)
h = optimizers.step_scalars(optimizers.sgd, 1.0, optimizers.Settings(), 1, w.dtype)
loaded.ops.update(optimizers.sgd, w, np.ones(1, np.float32), np.zeros((0, 1), np.float32), h)
print(json.dumps([cache.KERNELS, float(out[0, 0]), float(w[0])]))
"""


class Result(NamedTuple):
    """What a process got."""

    version: str
    product: float
    weight: float
    loaded: int  # pieces of code from the cache
    saved: int  # pieces of code put there


@pytest.fixture
def install(tmp_path):
    """A copy of the package, without compiled code."""
    ignore = shutil.ignore_patterns("__pycache__", "kernels")
    shutil.copytree(Path(fastmlp.__file__).parent, tmp_path / "site/fastmlp", ignore=ignore)
    kernels = Path(fastmlp.kernels.cpu.__file__).parent.parent
    shutil.copytree(kernels, tmp_path / "site/fastmlp/kernels", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "site"


@pytest.fixture
def result(program, install):
    """Call it with words and environment variables: runs PROGRAM from the copy."""

    def run(*words, **variables):
        none = {"NUMBA_CACHE_DIR": None, "XDG_CACHE_HOME": None, "NUMBA_DEBUG_CACHE": 1}
        *log, printed = program(PROGRAM, *words, folders=[install], **{**none, **variables}).splitlines()
        counts = [sum(f"data {what}" in line for line in log) for what in ("loaded", "saved")]
        return Result(*json.loads(printed), *counts)

    return run


def edit(path, more):
    """Append to a source, whose size and time Numba does not look at."""
    path.write_text(path.read_text() + more)


def shut(install):
    """Make the folders of compiled code such that not even root can make them: files."""
    for folder in ("fastmlp", "fastmlp/backends", "fastmlp/kernels/cpu"):
        (install / folder / "__pycache__").write_text("")


def test_a_second_process_finds_the_code_and_an_edit_is_never_stale(result, install):
    first = result("product")
    assert first.product == 5
    assert first.loaded == 0
    assert first.saved >= 2
    assert list((install / "fastmlp/kernels/cpu/__pycache__").glob(f"*{first.version}*.nbi"))

    again = result("product")
    assert again == first._replace(loaded=first.saved, saved=0)

    # 3 + 1 * 2 becomes 3 + 2 * 2: the sources of the microkernel are edited, not that of the kept function.
    edit(
        install / "fastmlp/kernels/cpu/vector.py",
        "\n\ndef broadcast(builder, scalar, vector, plain=broadcast):\n"
        "    twice = scalar.type in REALS.values()\n"
        "    return plain(builder, builder.fadd(scalar, scalar) if twice else scalar, vector)\n",
    )
    edited = result("product")
    assert edited.product == 7
    assert edited.version != first.version
    assert edited.loaded == 0


def test_an_edited_rule_is_never_stale(result, install):
    assert result().weight == -1
    source, rule = install / "fastmlp/optimizers.py", "w[i] -= h.rate * (g[i]"
    text = source.read_text()
    assert rule in text
    source.write_text(text.replace(rule, rule.replace("h.rate", "2 * h.rate"), 1))  # of sgd
    assert result().weight == -2


def test_code_goes_to_the_users_folder_where_the_install_may_not_be_written(result, install, tmp_path):
    shut(install)
    first = result(HOME=tmp_path)
    kept = list(tmp_path.rglob("*.nbi"))
    assert len(kept) == first.saved > 0
    assert not any(path.is_relative_to(install) for path in kept)
    assert result(HOME=tmp_path) == first._replace(loaded=first.saved, saved=0)


def test_it_runs_where_nothing_may_be_written(result, install, tmp_path):
    shut(install)
    (tmp_path / "home").write_text("a file, where a folder should be")
    got = result("product", HOME=tmp_path / "home")
    assert (got.product, got.weight) == (5, -1)


def test_a_fingerprint_is_of_every_source(tmp_path):
    folder = Path(fastmlp.kernels.cpu.__file__).parent
    shutil.copytree(folder, tmp_path / "cpu")
    assert cache.fingerprint(tmp_path / "cpu") == cache.KERNELS == cache.fingerprint(folder)
    seen = {cache.KERNELS}
    for path in sorted((tmp_path / "cpu").glob("*.py")):
        edit(path, "# edited\n")
        seen.add(cache.fingerprint(tmp_path / "cpu"))
    assert len(seen) == 1 + len(list(folder.glob("*.py")))


@pytest.mark.parametrize("name", ["epoch_in_tiles", "epoch_in_phases", "evaluate", "outputs"])
def test_names_carry_the_version_of_all_that_is_compiled_in(name):
    version = getattr(compiled, name).py_func.__qualname__.removeprefix(name)
    for folder in (cache, compiled_update, fastmlp):
        assert cache.fingerprint(Path(folder.__file__).parent) in version
