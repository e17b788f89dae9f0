"""What `import fastmlp` loads, what it costs, and that the parts keep to their rooms."""

import ast
import inspect
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import fastmlp
from fastmlp import backends
from fastmlp.backends.base import Ops

LAZY = (
    "numba", "llvmlite", "cupy", "sklearn", "scipy", "matplotlib", "rich", "typer", "safetensors",
    "threadpoolctl", "pooch",
)  # fmt: skip
PACKAGE = Path(fastmlp.__file__).parent
MISSING_NUMBA = """
import sys
sys.modules["numba"] = None
import warnings
warnings.simplefilter("error")
import numpy as np, fastmlp
X, y = np.random.default_rng(0).standard_normal((20, 3)), np.arange(20) % 2
options = dict(epochs=1, progress=False, hidden=(4,))
"""


def python(code, *flags):
    """Run `code` in a new interpreter; what it printed."""
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip() or done.stderr


def test_import_loads_numpy_only():
    loaded = python(f"import sys, fastmlp; print([name for name in {LAZY} if name in sys.modules])")
    assert loaded == "[]"


def test_training_on_numpy_loads_no_other_backend():
    code = "import sys, fastmlp; fastmlp.train([[0.], [1.]], [0, 1], backend='numpy', epochs=1, progress=False)"
    lazy = [name for name in LAZY if name != "threadpoolctl"]
    assert python(f"{code}; print([name for name in {lazy} if name in sys.modules])") == "[]"


def test_import_costs_little_beyond_numpy():
    # -X importtime prints "import time: self | cumulative | name", in microseconds, indented by depth.
    shares = []
    for _ in range(5):
        cumulative = {}
        for line in python("import fastmlp", "-X", "importtime").splitlines():
            _, total, name = line.removeprefix("import time:").split("|")
            if total.strip().isdigit():
                cumulative[name.strip()] = int(total)
        shares.append(cumulative["fastmlp"] - cumulative["numpy"])
    assert min(shares) < 150_000  # the best of five: a busy machine adds, never takes away


def test_public_names_have_docstrings():
    assert fastmlp.__doc__
    for name in fastmlp.__all__:
        thing = getattr(fastmlp, name)
        assert inspect.getdoc(thing), name
        if not inspect.isclass(thing):
            continue
        for attribute, member in vars(thing).items():
            if not attribute.startswith("_") and (callable(member) or isinstance(member, property)):
                assert inspect.getdoc(member), f"{name}.{attribute}"


def test_all_is_sorted_and_complete():
    assert sorted(fastmlp.__all__) == fastmlp.__all__
    assert all(hasattr(fastmlp, name) for name in fastmlp.__all__)


def contract():
    """What base.py says below each operation."""
    body = ast.parse(inspect.getsource(Ops)).body[0].body
    return {
        field.target.id: text.value.value for field, text in pairwise(body) if isinstance(field, ast.AnnAssign)
    }  # fmt: skip


@pytest.mark.parametrize("name", backends.CLASSES)
@pytest.mark.parametrize("op", Ops._fields)
def test_operations_of_every_backend_take_the_same_arguments(name, op):
    loaded = backends.load(name)
    if isinstance(loaded, str):
        pytest.skip(f"{name}: {loaded}")
    given = list(inspect.signature(getattr(loaded.ops, op)).parameters)
    assert given == list(inspect.signature(getattr(backends.load("numpy").ops, op)).parameters)
    assert contract()[op].startswith(f"{op}({', '.join(given)})")


def imports(path):
    """The modules that a source file imports when it is loaded, but not in functions or for type checkers."""
    found = []
    todo = list(ast.parse(path.read_text()).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names] if node.module else []
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return found


def test_the_maths_imports_no_backend():
    rules = {"activations", "losses", "dropout", "optimizers", "elementary", "errors"}  # of elements, and refusals
    for module in ("network", *rules):
        found = [name.split(".") for name in imports(PACKAGE / f"{module}.py")]
        assert not [parts for parts in found if parts[0] in ("numba", "cupy")]
        assert {parts[1] for parts in found if parts[0] == "fastmlp"} <= rules


@pytest.mark.parametrize("path", sorted((PACKAGE / "backends").glob("*.py")), ids=lambda path: path.name)
def test_backends_import_nothing_of_training(path):
    above = ("training", "model", "model_io", "inputs", "labels", "data", "estimators", "cli", "plots", "progress")
    assert not [name for name in imports(path) if name.split(".")[:1] == ["fastmlp"] and name.split(".")[1] in above]


def test_kernels_import_nothing_of_ours():
    import fastmlp.kernels

    for path in Path(fastmlp.kernels.__file__).parent.rglob("*.py"):
        ours = [name for name in imports(path) if name.startswith("fastmlp") and not name.startswith("fastmlp.kernels")]
        assert ours == [], path


def test_kernels_never_install_at_top_level():
    code = "import sys, importlib.util; sys.path.remove(''); print(importlib.util.find_spec('kernels'))"
    assert python(code) == "None"


def test_without_numba_auto_is_silent():
    code = "model = fastmlp.train(X, y, **options); print(model.report.backend, '|', model.report.reason)"
    name, _, reason = python(MISSING_NUMBA + code).partition(" | ")
    assert name == "numpy"
    assert "numba is not usable" in reason


def test_without_numba_asking_for_it_warns_once_and_runs_numpy():
    code = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = fastmlp.train(X, y, backend="numba", **options)
print(model.report.backend, [w.category.__name__ for w in caught], "numpy runs instead" in str(caught[0].message))
"""
    assert python(MISSING_NUMBA + code) == "numpy ['BackendFallbackWarning'] True"


def test_without_numba_strict_raises():
    code = """
try:
    fastmlp.train(X, y, backend="numba", strict=True, **options)
except fastmlp.BackendUnavailable as error:
    print(error)
"""
    assert "numba is not usable" in python(MISSING_NUMBA + code)
