"""The rungs that benchmarks.gpu_peers times, each doing the same work, on the CPU over the stand-in for CuPy."""

import importlib
import sys
from pathlib import Path

from fastmlp.data import digits

ROOT = Path(__file__).parents[2]


def test_every_rung_does_the_same_work(cupy, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setattr(cupy, "__version__", "none", raising=False)
    monkeypatch.delitem(sys.modules, "benchmarks.gpu.ours", raising=False)
    jobs, check, ours = (
        importlib.import_module(f"benchmarks.{name}") for name in ("peers.jobs", "peers.check", "gpu.ours")
    )
    few = digits()._replace(X=digits().X[:97], y=digits().y[:97])
    monkeypatch.setattr(jobs, "read", lambda source: few)
    job = jobs.Job(jobs.Source("images", 97), (32,), 40, "momentum", 0.1, 1, precision="float16")
    judge, trainers = check.epoch_check(job), ours.trainers(job, "cupy")
    assert [trainer.name for trainer in trainers] == [
        f"fastmlp float16{rung}"
        for rung in ("", " without tensor-core kernels", " launched one by one", " operation by operation")
    ]
    for trainer in trainers:
        trainer.restart()
        judge(trainer.name, (trainer.epoch(job.order(), job.rates()), trainer.parameters()))
