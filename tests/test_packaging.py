"""What an installed fastmlp holds: the wheel, the sdist, and an editable install, each in an environment of its own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
BY_PRODUCTS = (".git", ".venv", "__pycache__", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis", ".benchmarks")


class Built(NamedTuple):
    tree: Path  # a copy of the sources, so that building leaves nothing behind in the checkout
    sdist: Path
    wheel: Path  # from the tree
    wheel_of_sdist: Path


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    result = subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Built:
    base = tmp_path_factory.mktemp("build")
    tree = base / "fastmlp"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*BY_PRODUCTS))
    run(sys.executable, "-m", "build", "--sdist", "--wheel", "--outdir", base / "tree", tree, cwd=base)
    sdist = base / "tree" / f"fastmlp-{VERSION}.tar.gz"
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", base / "sdist", sdist, cwd=base)
    name = f"fastmlp-{VERSION}-py3-none-any.whl"
    return Built(tree, sdist, base / "tree" / name, base / "sdist" / name)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sources(*folders: str) -> dict[str, bytes]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_bytes()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_source_file_and_nothing_else(built):
    expected = sources("fastmlp") | {f"fastmlp/{name}": text for name, text in sources("kernels").items()}
    found = {name: text for name, text in contents(built.wheel).items() if ".dist-info/" not in name}
    assert sorted(found) == sorted(expected)
    assert found == expected


def test_the_wheel_holds_the_kernels_and_the_type_marker(built):
    names = set(contents(built.wheel))
    assert {"fastmlp/py.typed", "fastmlp/kernels/__init__.py", "fastmlp/kernels/cpu/fused.py"} <= names
    assert any(name.startswith("fastmlp/kernels/cuda/") and name.endswith(".cu") for name in names)


def test_the_wheel_adds_one_name_to_the_top_level(built):
    assert {name.split("/")[0] for name in contents(built.wheel)} == {"fastmlp", f"fastmlp-{VERSION}.dist-info"}


def test_the_sdist_makes_the_same_wheel(built):
    assert contents(built.wheel_of_sdist) == contents(built.wheel)


def test_the_sdist_holds_what_it_takes_to_test_it(built):
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tops = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "pyproject.toml", "MANIFEST.in", ".ci/run"]
    expected = {*tops, *sources("fastmlp", "kernels", "docs", "tests", "benchmarks")}
    assert expected <= names, sorted(expected - names)
    assert not [name for name in names if "__pycache__" in name]


@pytest.fixture(scope="session", params=["wheel", "editable"])
def installed(request, built, tmp_path_factory) -> tuple[Path, Path]:
    """The folder of programs of a fresh environment with fastmlp in it, and where its modules must come from."""
    base = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", base, cwd=base)
    paths = sysconfig.get_paths("venv", {"base": str(base), "platbase": str(base)})
    what = ["-e", built.tree] if request.param == "editable" else ["--no-index", built.wheel]
    python = Path(paths["scripts"]) / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", *what, cwd=base)
    # fastmlp's dependencies are those of the tests' own environment. A path in a .pth file does not run the .pth files
    # found there, so an editable fastmlp of that environment stays out of sight.
    own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(paths["purelib"]) / "dependencies.pth").write_text("\n".join(own))
    return python.parent, built.tree if request.param == "editable" else Path(paths["purelib"])


LOOK = """
import importlib.metadata, importlib.util, json
import fastmlp.backends, fastmlp.kernels.cpu.fused, fastmlp.kernels.cuda
from importlib.resources import files
print(json.dumps({
    "version": importlib.metadata.version("fastmlp"),
    "files": [fastmlp.__file__, fastmlp.kernels.cpu.fused.__file__, fastmlp.kernels.cuda.__file__],
    "cuda": [file.name for file in files("fastmlp.kernels.cuda").iterdir()],
    "others": [name for name in ("kernels", "tests", "benchmarks") if importlib.util.find_spec(name)],
}))
"""


def test_an_install_imports_from_its_own_place(installed, tmp_path):
    programs, home = installed
    seen = json.loads(run(programs / "python", "-I", "-c", LOOK, cwd=tmp_path))
    assert seen["version"] == VERSION
    assert all(Path(file).is_relative_to(home) for file in seen["files"]), seen["files"]
    assert any(name.endswith(".cu") for name in seen["cuda"])
    assert seen["others"] == [], "only fastmlp may be importable"


def test_an_install_trains(installed, tmp_path):
    train = "import fastmlp; print(len(fastmlp.train([[0.0], [1.0]], [0, 1], epochs=3).history))"
    assert run(installed[0] / "python", "-I", "-c", train, cwd=tmp_path) == "3\n"


def test_an_install_has_the_command(installed, tmp_path):
    assert "train" in run(installed[0] / "fastmlp", "--help", cwd=tmp_path)
