"""fastmlp on the GPU: the learner as it is, and with what makes it fast taken away piece by piece."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import cupy
import numpy as np

from benchmarks.peers.contract import NotThere
from benchmarks.peers.jobs import Job
from benchmarks.peers.ours import Ours

VERSIONS = {"fastmlp": version("fastmlp"), "cupy": cupy.__version__}
WHY = "switched off to be measured"
# Attributes of a learner by rung, from the fastest down; "" is what `fastmlp.train` runs.
RUNGS: dict[str, dict[str, Any]] = {
    "": {},
    "without tensor-core kernels": {"tensor": None},
    "launched one by one": {"tensor": None, "refusal": WHY},
    "operation by operation": {"tensor": None, "refusal": WHY, "fused": False},
}


class OnGpu(Ours):
    """See `contract.Streaming`."""

    def __init__(self, job: Job, backend: str):
        super().__init__(job, backend)
        self.job = job

    def several(self, order: np.ndarray | None, rates: np.ndarray, times: int) -> float:
        """Epochs in one call."""
        if times == 1 or order is not None:
            return [self.epoch(order, rates) for _ in range(times)][-1]
        return self.learner.epochs(self.rows, self.batch, np.tile(rates, (times, 1)))[-1].loss


def rungs(job: Job) -> list[OnGpu]:
    """A trainer for each rung that differs from the one above it."""
    trainers, above = [], None
    for name, attributes in RUNGS.items():
        trainer = OnGpu(job, "cupy")
        had = {key: getattr(trainer.learner, key) for key in attributes if hasattr(trainer.learner, key)}
        if "tensor" in had and not trainer.learner.takes(trainer.rows, trainer.batch):
            del had["tensor"]  # they have no part in it
        for key in had:
            setattr(trainer.learner, key, attributes[key])
        now = {key: attributes[key] for key in had}
        changed = {key: value for key, value in now.items() if had[key] != value}
        if above is None or changed != above:
            trainer.name = " ".join(filter(None, (f"fastmlp {job.precision}", name)))
            trainers.append(trainer)
            above = changed
    return trainers


def trainers(job: Job, library: str) -> list[OnGpu]:
    """All rungs."""
    if job.optimizer != "momentum":
        raise NotThere("the comparison on GPUs has momentum only")
    return rungs(job)


def event() -> Any:
    """A moment on the GPU, once what was queued before it is done."""
    mark = cupy.cuda.Event()
    mark.record()
    return mark


def seconds_between(first: Any, last: Any) -> float:
    """Seconds from one moment to another."""
    last.synchronize()
    return cupy.cuda.get_elapsed_time(first, last) / 1e3
