"""torch on the GPU: eager, by torch.compile, and with the whole step in one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.contract import NotThere
from benchmarks.peers.jobs import Job
from benchmarks.peers.with_torch import (
    OPERANDS,
    VERSIONS,
    Torch,
    loss_of,
    network,
    optimizer,
    set_parameters,
)

__all__ = ["VERSIONS", "event", "seconds_between", "trainers"]

if not torch.cuda.is_available():
    raise ImportError(f"torch {torch.__version__} sees no GPU; install a build for CUDA")

DEVICE = "cuda"
WARM_UP = 3  # steps before the capture: all is allocated and chosen then


class TorchGraph(Torch):
    """An epoch is as many launches of one graph as it has whole batches.

    A graph knows addresses only, so order, rates and the step's number lie on the device.
    """

    def __init__(self, job: Job, name: str):
        self.job, self.name, n = job, name, len(job.data.y)
        self.X = torch.from_numpy(job.data.x).to(DEVICE, OPERANDS[job.precision])
        self.y = torch.from_numpy(job.data.y).to(DEVICE, torch.int64)
        self.net = network(job, DEVICE)
        self.loss = loss_of(self.net, job.precision)
        self.steps, self.rest = (1, 0) if job.full else divmod(n, job.batch)
        self.orders = torch.zeros((self.steps, job.batch), dtype=torch.int64, device=DEVICE)
        self.tail = torch.zeros(self.rest, dtype=torch.int64, device=DEVICE)
        self.rates = torch.zeros(len(job.rates()), device=DEVICE)
        self.rate, self.total = torch.zeros((), device=DEVICE), torch.zeros((), device=DEVICE)
        self.turn = torch.zeros(1, dtype=torch.int64, device=DEVICE)
        self.optimizer = optimizer(self.net, job)
        self.optimizer.param_groups[0]["lr"] = self.rate
        self.graph: Any = None
        self.last: Any = None

    def next_batch(self) -> Tensor:
        """The rows of the step at hand (n,)."""
        return self.orders.index_select(0, self.turn).view(-1)

    def picked(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, I) and labels (n,)."""
        return self.X.index_select(0, rows), self.y.index_select(0, rows)

    def step(self, batch: Callable[[], tuple[Tensor, Tensor]]) -> None:
        """All of one step, without the host."""
        x, y = batch()
        self.rate.copy_(self.rates.index_select(0, self.turn).view(()))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach() * len(y)
        self.turn += 1

    def capture(self, batch: Callable[[], tuple[Tensor, Tensor]]) -> Any:
        """The graph of a step, after a few uncaptured ones."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP):
                self.turn.zero_()
                self.step(batch)
        torch.cuda.current_stream().wait_stream(aside)
        self.turn.zero_()
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step(batch)
        return graph

    def restart(self) -> None:
        """Back to the start, in the same places. The first time, the steps are captured."""
        torch.backends.cuda.matmul.allow_tf32 = self.job.precision == "tf32"
        if self.graph is None:
            self.graph = self.capture(lambda: (self.X, self.y) if self.job.full else self.picked(self.next_batch()))
            self.last = self.capture(lambda: self.picked(self.tail)) if self.rest else None
        set_parameters(self.net, self.job)
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def dispatch(self, order: np.ndarray | None, rates: np.ndarray) -> Tensor:
        """One epoch, on its way; its loss will be there."""
        self.rates.copy_(torch.from_numpy(rates))
        if order is not None:
            given = torch.from_numpy(order)
            whole = self.orders.numel()
            self.orders.copy_(given[:whole].view(self.orders.shape))
            self.tail.copy_(given[whole:])
        self.turn.zero_()
        self.total.zero_()
        for _ in range(self.steps):
            self.graph.replay()
        if self.last is not None:
            self.last.replay()
        return self.total / len(self.y)


def trainers(job: Job, library: str) -> list[Any]:
    """Eager, one graph, and compiled: where products are most of the time also with the longer search for kernels."""
    if job.optimizer != "momentum":
        raise NotThere("the comparison on GPUs has momentum only")
    torch._dynamo.reset()  # what was compiled for other jobs counts against a limit
    name = f"torch {job.precision}"
    modes = ["reduce-overhead", "max-autotune"] if job.full else ["reduce-overhead"]
    return [
        Torch(job, f"{name}, eager", device=DEVICE),
        *(Torch(job, f"{name}, compile {mode}", device=DEVICE, compiled=mode) for mode in modes),
        TorchGraph(job, f"{name}, one CUDA graph"),
    ]


def event() -> torch.cuda.Event:
    """A moment on the GPU, once what was queued before it is done."""
    mark = torch.cuda.Event(enable_timing=True)
    mark.record()
    return mark


def seconds_between(first: torch.cuda.Event, last: torch.cuda.Event) -> float:
    """Seconds from one moment to another."""
    last.synchronize()
    return first.elapsed_time(last) / 1e3
