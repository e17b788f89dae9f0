"""The comparison with other libraries: every row runs on tiny data, for the libraries that are installed."""

import importlib
import importlib.util
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastmlp.data import digits

ROOT = Path(__file__).parents[1]
ROWS = ("full-dense", "full", "batch-128", "batch-32", "adam-small", "adam-deep", "predict", "predict-one", "train",
        "threads-full", "threads-128")  # fmt: skip
NAMES = {"jax": "JAX", "torch": "torch", "sklearn": "scikit-learn"}


@pytest.fixture
def peers(monkeypatch):
    """peers(name): a module of the harness, which is not installed."""
    monkeypatch.syspath_prepend(ROOT)
    return lambda name: importlib.import_module(f"benchmarks.peers.{name}")


def need(library):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: pip install fastmlp[peers]")


def run(module, *options, **variables):
    """A program of benchmarks/, in a process of its own: it limits threads, and other libraries stay out of ours."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, options)]
    env = {**os.environ, **variables}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.parametrize("library", NAMES)
def test_a_record_holds_every_row_and_raw_number(library, tmp_path):
    need(library)
    run("peers", "--rows", 300, "--rounds", 2, "--threads", 2, "--only", library, "--record", "--folder", tmp_path)
    raw, text = (next(tmp_path.glob(f"*-peers.{kind}")) for kind in ("json", "md"))
    record = json.loads(raw.read_text())
    assert [row["key"] for row in record["table"]] == list(ROWS)
    for row in record["table"]:
        assert next(iter(row["seconds"])) == "fastmlp numba"
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in row["seconds"].values())
        own = row["key"].startswith("threads") or (row["key"] == "train" and library != "sklearn")
        assert own or NAMES[library] in row["seconds"]
    assert record["peak flop/s"]["best"] > 0
    assert {"fastmlp", "numpy", "numba"} < set(record["versions"])
    assert record["not run"] == {}
    assert "| **full batch" in text.read_text()
    assert not {"host", "node"} & set(record["machine"])


def test_a_missing_library_is_named_with_the_reason(peers, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.with_jax", raising=False)
    assert "jax" in peers("contract").load("jax")


def test_an_unknown_name_is_refused_with_the_names_there_are(peers):
    with pytest.raises(Exception, match=r"predict-one.*sklearn.*got keras"):
        peers("__main__").choose(peers("table").rows(100, 1), ["keras"])


def tiny_job(peers, **changes):
    x, _, y = peers("jobs").dense(300, 16, 26)
    job = peers("jobs").Job(x, x, y, (16, 20, 26), 64, "momentum", 0.2, 1)
    return job._replace(**changes)


@pytest.mark.parametrize("changes", [{"rate": 0.21}, {"beta": 0.89}, {"seed": 2}, {"optimizer": "adam"}])
def test_a_library_that_does_other_work_is_refused(peers, changes):
    check, ours = peers("check"), peers("ours")
    judge = check.epoch_check(tiny_job(peers))
    trainer = ours.trainers(tiny_job(peers))[0]
    judge(trainer, trainer.epoch(tiny_job(peers).order()))
    other = ours.trainers(tiny_job(peers, **changes))[0]
    with pytest.raises(check.WrongResult, match="the loss of one epoch is"):
        judge(other, other.epoch(tiny_job(peers).order()))


@pytest.mark.parametrize("library", ["fastmlp", "sklearn"])  # the others stay out of this process
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_restart_forgets_the_steps_taken_and_a_rate_can_be_set(peers, library, optimizer):
    job = tiny_job(peers, optimizer=optimizer, rate=0.01)
    for trainer in peers("contract").load(library).trainers(job):
        first = trainer.epoch(job.order()), trainer.parameters().copy()
        trainer.restart()
        again = trainer.epoch(job.order()), trainer.parameters().copy()
        assert first[0] == again[0]
        np.testing.assert_array_equal(first[1], again[1])
        assert trainer.rate == pytest.approx(0.01)
        trainer.restart()
        trainer.rate = 0.02
        trainer.epoch(job.order())
        assert not np.array_equal(trainer.parameters(), again[1])


@pytest.fixture
def mnist_folder(tmp_path):
    """Built-in digits in files of MNIST's format and names."""
    X, y = digits().X[:800], digits().y[:800]
    for name, rows in (("train", slice(0, 500)), ("t10k", slice(500, 800))):
        for kind, array in (("images-idx3", X[rows].reshape(-1, 28, 28)), ("labels-idx1", y[rows].astype(np.uint8))):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (tmp_path / f"{name}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


def test_time_to_accuracy_trains_by_the_recipe(mnist_folder, tmp_path):
    options = ("--seeds", 2, "--rows", 500, "--record", "--folder", tmp_path)
    run("time_to_accuracy", *options, FASTMLP_MNIST=str(mnist_folder))
    record = json.loads(next(tmp_path.glob("*.json")).read_text())
    rates = record["rates"]
    assert len(rates) == 8
    assert np.mean(rates) == pytest.approx(0.3)
    assert rates == sorted(rates, reverse=True)
    outcomes = record["seconds and accuracy by seed"]
    accuracies = np.array([[accuracy for _, accuracy in found] for found in outcomes.values()])  # (libraries, seeds)
    assert accuracies.min() > 0.5
    assert np.ptp(accuracies, axis=0).max() < 0.05  # one recipe, whatever the library
