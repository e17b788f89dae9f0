"""The documents: commands that parse, code that runs, links that lead somewhere, quotations that are true."""

import doctest
import re
import subprocess
import warnings
from pathlib import Path

import pytest

import fastmlp

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_OURS = {".git", ".venv", "__pycache__", "build", "dist", ".hypothesis", ".benchmarks"}


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def prose(document: Path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The names GitHub gives to a document's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_every_fence_is_closed(document):
    fences = re.findall(r"^```", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_shell_commands_parse(document):
    for command in blocks(document, "sh") + blocks(document, "console"):
        result = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True)
        assert result.returncode == 0, f"{result.stderr}in\n{command}"


def test_the_first_two_commands_install_and_train_and_install_and_test():
    first, second = blocks(ROOT / "README.md", "sh")[:2]
    assert len(first.splitlines()) == len(second.splitlines()) == 1
    assert "pip install ." in first and "fastmlp train" in first
    assert "[test]" in second and second.rstrip().endswith("pytest -n auto")


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fastmlp.BackendFallbackWarning)  # the README asks for a GPU
        for code in blocks(ROOT / "README.md", "python"):
            exec(compile(code, "README.md", "exec"), names)


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_sessions_show_what_python_says(document):
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for session in blocks(document, "pycon"):
        seen = []
        runner.run(parser.get_doctest(session, {}, by_name(document), None, 0), out=seen.append)
        assert not seen, "".join(seen)


def test_the_maths_page_quotes_the_code():
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "fastmlp").rglob("*.py"))
    lines = {line.split("  #")[0].strip() for line in code.splitlines()}
    quoted = [line for block in blocks(ROOT / "docs" / "maths.md", "python") for line in block.splitlines()]
    assert len(quoted) > 20
    wrong = [line for line in quoted if re.split(r" +#", line)[0].strip() not in lines]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("document", DOCUMENTS, ids=by_name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere on the web
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        assert path.exists(), f"{by_name(document)}: {target}"
        if anchor:
            assert anchor in anchors(path), f"{by_name(document)}: {target}; there are {sorted(anchors(path))}"


def test_the_repository_knows_no_machine_of_its_authors():
    path_of_a_machine = re.compile(r"(?<![\w.])/(?:work|root|home|Users|tmp/venv)/\w", re.ASCII)
    for file in ROOT.rglob("*"):
        parts = file.relative_to(ROOT).parts
        if not file.is_file() or any(part in NOT_OURS or part.endswith(("_cache", ".egg-info")) for part in parts):
            continue
        for number, line in enumerate(file.read_bytes().decode("utf-8", "replace").splitlines(), 1):
            assert not path_of_a_machine.search(line), f"{by_name(file)}, line {number}: {line}"
