"""The other programs of benchmarks/: footprint, estimators. Each runs on little data, and refuses what is wrong."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def module(monkeypatch):
    """module(name): a module of benchmarks/, which is not installed."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.{name}")


def run(name, *options):
    """A program of benchmarks/ in a process of its own, on one thread."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, options), "--threads", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture
def data(tmp_path):
    """A folder with X.npy (300, 784) uint8 and y.npy (300,)."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", rng.integers(0, 256, (300, 784), np.uint8))
    np.save(tmp_path / "y.npy", np.arange(300) % 10)
    return tmp_path


@LINUX
def test_the_peak_above_the_data_sees_an_array_and_not_the_data(module, data, monkeypatch):
    import fastmlp

    fresh = module("fresh")
    size = 50_000_000  # bytes

    def wasteful(*arguments, **options):
        np.ones(size, np.uint8)

    monkeypatch.setattr(fastmlp, "train", wasteful)
    assert fresh.batches(data, 1)["above MB"] == pytest.approx(50, abs=5)
    monkeypatch.setattr(fastmlp, "train", lambda *arguments, **options: None)
    assert fresh.full(data, 1)["above MB"] < 5


@LINUX
def test_fits_in_a_row_count_threads_and_memory_that_stay(module, data, monkeypatch):
    import threading

    import fastmlp

    fresh, kept, go_on = module("fresh"), [], threading.Event()
    monkeypatch.setattr(fresh, "FITS", 5)

    def leaky(*arguments, **options):
        kept.append(np.ones(40_000_000, np.uint8))  # above 32 MiB malloc never hands out what was freed before
        threading.Thread(target=go_on.wait).start()

    monkeypatch.setattr(fastmlp, "train", leaky)
    found = fresh.fits(data, 1)
    go_on.set()
    assert found["threads"][-1] - found["threads"][0] == 4
    assert found["MB"][-1] - found["MB"][0] == pytest.approx(160, abs=4)
    assert found["threads at most"] >= found["threads"][-1] - 1


@LINUX
def test_a_fresh_process_measures_an_epoch_and_footprint_tells_of_one_that_fails(module, data):
    footprint, cache = module("footprint"), Path(os.environ.get("NUMBA_CACHE_DIR", data / "cache"))
    found = module("fresh").epoch(data, 1)
    assert 0 < found["epoch"] < found["seconds"]
    assert 0 <= found["accuracy"] <= 1
    with pytest.raises(RuntimeError, match=r"(?s)epoch: the process ended with exit code 1.*X\.npy"):
        footprint.fresh("epoch", data / "elsewhere", cache, 1)


def test_the_table_of_footprint_shows_growth_since_the_first_fits(module):
    footprint = module("footprint")
    epoch = {"seconds": 1.0, "import": 0.25, "accuracy": 0.9}
    fits = {"MB": [100.0] * 19 + [150.0] * 30 + [153.0], "threads": [4] * 49 + [6], "threads before": 4,
            "threads at most": 7}  # fmt: skip
    memory = {"above MB": 20.0, "libraries MB": 90.0, "data MB": 33.0}
    table = dict(
        (line[0], line[1])
        for line in footprint.lines(
            {"with cache": [epoch], "without cache": [epoch], "batches": [memory], "full": [memory], "fits": [fits]}
        )
    )
    assert table["MB by which memory grew from fit 20 to fit 50"] == "3"
    assert table["threads by which the process grew over 50 fits"] == "2"
    assert table["MB above libraries and data at the peak, full batch"] == "20"


def test_estimators_are_compared_and_the_record_holds_every_number(tmp_path):
    keys = ("diabetes", "letters-32")
    only = [word for key in keys for word in ("--only", key)]
    run("estimators", "--rows", 60, "--rounds", 1, *only, "--record", "--folder", tmp_path)
    record = json.loads(next(tmp_path.glob("*-estimators.json")).read_text())
    assert [row["key"] for row in record["table"]] == list(keys)
    assert all(list(row["seconds"]) == ["fastmlp", "fastmlp, numba", "scikit-learn"] for row in record["table"])
    assert "16,000 x 16" in next(tmp_path.glob("*-estimators.md")).read_text()


@pytest.mark.parametrize(
    ("losses", "scores", "words"),
    [
        ([1.0, 0.5 + 1e-3], [0.9], "the loss of epoch 2"),
        ([1.0], [0.9], "1 epochs"),
        ([1.0, 0.5], [0.8], "a score is 0.1"),
    ],
)
def test_an_estimator_that_came_out_otherwise_is_refused(module, losses, scores, words):
    check, Fitted = module("estimators.check"), module("estimators.work").Fitted
    judge = check.as_expected(Fitted([1.0, 0.5], [0.9], "float64"))
    judge("ours", Fitted([1.0, 0.5], [0.9], "float64"))
    with pytest.raises(Exception, match=words):
        judge("ours", Fitted(losses, scores, "float64"))


def test_the_shapes_of_numba_stand_beside_those_of_numpy():
    assert "16-100-26, 200" in run("shapes", "--rounds", 1, "--only", 4)


def test_nets_that_differ_from_their_own_fits_are_refused(module):
    nets = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    judge = module("estimators.check").same_nets(nets)
    judge("ours", nets * np.float32(1 + 1e-6))
    with pytest.raises(Exception, match="net 2"):
        judge("ours", np.concatenate([nets[:2], nets[2:] + 1]))
