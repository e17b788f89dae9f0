"""The comparison on GPUs, without one: what is pure, and the programs that stand beside ours, run on the CPU."""

import importlib
import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fastmlp import backends

ROOT = Path(__file__).parents[1]


@pytest.fixture
def module(monkeypatch):
    """module(name): a module of benchmarks/, which is not installed; those of benchmarks/gpu are imported anew."""
    monkeypatch.syspath_prepend(ROOT)

    def load(name):
        if name.startswith("gpu."):
            monkeypatch.delitem(sys.modules, f"benchmarks.{name}", raising=False)
        return importlib.import_module(f"benchmarks.{name}")

    return load


@pytest.fixture
def numpy_as_cupy(monkeypatch):
    """NumPy under CuPy's name: what is written for both runs on the CPU."""
    fake = types.ModuleType("cupy")
    fake.__dict__.update({name: getattr(np, name) for name in dir(np) if not name.startswith("__")})
    fake.asnumpy, fake.__version__ = np.asarray, "none"
    monkeypatch.setitem(sys.modules, "cupy", fake)


def job(module, **changes):
    jobs = module("peers.jobs")
    return jobs.Job(jobs.Source("dense", 300, 16, 26), (20, 12), 64, "momentum", 0.2, 1)._replace(**changes)


def judge(module, trainer, job, times=1):
    trainer.restart()
    for _ in range(times):
        loss = trainer.epoch(job.order(), job.rates())
    module("peers.check").epoch_check(job, times)(trainer.name, (loss, trainer.parameters()))


def test_without_a_gpu_it_says_so_and_fails(module, capsys):
    if not isinstance(backends.load("cupy"), str):
        pytest.skip("there is a GPU here")
    typer = pytest.importorskip("typer")
    with pytest.raises(typer.Exit) as ended:
        module("gpu_peers").main(None, 1, 1.0, None, False, ROOT)
    assert ended.value.exit_code == 1
    assert "no GPU to measure: fastmlp's cupy backend cannot be used here" in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{}, {"hidden": (20,)}, {"batch": 300}])
def test_naive_cupy_does_the_same_work(module, numpy_as_cupy, changes):
    work = job(module, **changes)
    (trainer,) = module("gpu.naive").trainers(work._replace(precision="tf32"), "naive")
    judge(module, trainer, work, times=3 if work.full else 1)
    with pytest.raises(module("peers.contract").NotThere, match="float16"):
        module("gpu.naive").trainers(work._replace(precision="float16"), "naive")


def test_a_profile_adds_up_the_runs_of_each_kernel(module, capsys):
    script = module("gpu_profile")
    runs = [("a", 1.0), ("b", 5.0), ("a", 2.0), ("a", 4.0)]
    assert script.by_kernel(runs) == [("a", 3, 2.0, 7.0), ("b", 1, 5.0, 5.0)]
    calls = []
    assert script.median_seconds(lambda: calls.append(1)) < 1
    assert len(calls) == script.READINGS + 3
    if isinstance(backends.load("cupy"), str):
        with pytest.raises(pytest.importorskip("typer").Exit):
            script.main()
        assert "no GPU to measure" in capsys.readouterr().out


def test_rungs_take_away_what_the_learner_has_and_no_rung_is_there_twice(module, numpy_as_cupy, monkeypatch):
    ours = module("gpu.ours")

    class Trainer:
        def __init__(self, job, backend):
            self.learner = types.SimpleNamespace(**learner)

    monkeypatch.setattr(ours, "OnGpu", Trainer)
    learner = {}
    assert [trainer.name for trainer in ours.rungs(job(module))] == ["fastmlp float32"]
    learner = {"refusal": None, "fused": True}
    found = ours.rungs(job(module))
    assert [trainer.name for trainer in found] == [
        "fastmlp float32", "fastmlp float32 launched one by one", "fastmlp float32 operation by operation",
    ]  # fmt: skip
    assert [trainer.learner.fused for trainer in found] == [True, True, False]
    learner = {"refusal": None, "fused": False}
    assert len(ours.rungs(job(module))) == 2


def test_rows_are_checked_at_the_precision_they_name(module):
    table = module("gpu.table")
    found = table.rows(200)
    assert len({row.key for row in found}) == len(found)
    for row in found:
        precisions = {entry.job.precision for entry in row.entries}
        assert precisions == ({"tf32"} if "tf32" in row.title else {"float16", "bfloat16"})
        assert row.entries[0].libraries[0] == "cupy"
        assert all(library in table.LIBRARIES for entry in row.entries for library in entry.libraries)


def test_a_row_that_is_not_there_is_refused(module):
    typer = pytest.importorskip("typer")
    choose = module("gpu_peers").choose
    assert [row.key for row in choose(200, ["full", "batch-128"])] == ["full", "batch-128"]
    assert choose(200, ()) == module("gpu.table").rows(200)
    with pytest.raises(typer.BadParameter, match=r"expected a row \(batch-128-16, .*\); got deep$"):
        choose(200, ["full", "deep"])


def test_a_line_shows_wall_and_events_beside_each_other(module):
    script, times = module("gpu_peers"), module("peers.rounds").Times
    row = script.Measured("full", "full batch", 2e9, times({"fastmlp tf32": [1e-3] * 3, "JAX": [4e-3] * 3},
                                                         {"fastmlp tf32": [9e-4] * 3}, {}),
                          {"torch": "no"}, {"naive": "Traceback\nValueError: bad"})  # fmt: skip
    ours, jax, torch, naive = script.lines(row)
    assert naive[0] == "naive: FAILED: ValueError: bad"
    assert ours == ("fastmlp tf32", "1", "1", "1", "0.9", "0.9", "0.9", "1.00", "2")
    assert jax == ("JAX", "4", "4", "4", "", "", "", "4.00", "0.5")
    assert torch[0] == "torch: not there: no"
    assert {len(line) for line in (ours, jax, torch, naive)} == {len(script.HEADS)}


@pytest.fixture
def torch_on_the_cpu(module, monkeypatch):
    """benchmarks.gpu.with_torch with the CPU as its device, and a graph that runs its step when launched."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: pip install fastmlp[bench]")
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = module("gpu.with_torch")
    monkeypatch.setattr(found, "DEVICE", "cpu")
    monkeypatch.setattr(
        found.TorchGraph, "capture",
        lambda self, batch: types.SimpleNamespace(replay=lambda: self.step(batch)),
    )  # fmt: skip
    return found


@pytest.mark.parametrize("changes", [{}, {"batch": 300}, {"batch": 100}])
def test_torch_in_one_graph_does_the_same_work(module, torch_on_the_cpu, changes):
    work = job(module, **changes)
    judge(module, torch_on_the_cpu.TorchGraph(work, "torch, one CUDA graph"), work, times=2)


def test_the_program_runs_whole_and_keeps_a_record(module, monkeypatch, tmp_path):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed: pip install fastmlp[bench]")
    script = module("gpu_peers")
    monkeypatch.delenv("FASTMLP_MNIST", raising=False)
    monkeypatch.setattr(script, "LIBRARIES", {"cupy": "benchmarks.peers.with_torch", "naive": "benchmarks.gpu.none"})
    monkeypatch.setattr(script, "device", lambda: "no GPU, a test")
    monkeypatch.setattr(script, "measure_ceilings", lambda: {"bytes_per_second": 1e12, "flop_per_second": 1e13})
    script.main(300, 2, 1.0, ["full", "batch-128-16"], True, tmp_path)
    record = json.loads(next(tmp_path.glob("*-gpu-peers.json")).read_text())
    assert [row["key"] for row in record["table"]] == ["batch-128-16", "full"]
    assert all(len(seconds) == 2 for row in record["table"] for seconds in row["times"]["wall"].values())
    assert "naive" in record["not run"]
    text = next(tmp_path.glob("*-gpu-peers.md")).read_text()
    assert "| torch tf32 autocast |" in text
    assert "no GPU, a test" in text
