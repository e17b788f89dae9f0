"""torch, eager: batches sliced from tensors in the order of a permutation, or drawn by a DataLoader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastmlp.network import layer_views
from fastmlp.optimizers import BETA2, EPSILON

from .jobs import Job

VERSIONS = {"torch": torch.__version__}


def network(job: Job) -> nn.Sequential:
    """Linear layers with ReLU between them; the last gives the logits."""
    layers = [part for sizes in pairwise(job.sizes) for part in (nn.Linear(*sizes), nn.ReLU())]
    net = nn.Sequential(*layers[:-1])
    set_parameters(net, job)
    return net


def set_parameters(net: nn.Sequential, job: Job) -> None:
    """The job's start; torch keeps W as (fan_out, fan_in)."""
    with torch.no_grad():
        for layer, W, b in zip(net[::2], *layer_views(job.start(), job.sizes), strict=True):
            layer.weight.copy_(torch.from_numpy(W).T)
            layer.bias.copy_(torch.from_numpy(b))


def optimizer(net: nn.Sequential, job: Job) -> torch.optim.Optimizer:
    """The rule, in torch's fused form: one pass over each parameter.

    Momentum's v = beta v + (1 - beta) g is dampening 1 - (1 - beta) = beta; but torch's first v is g itself, unless a
    buffer of zeros is there already.
    """
    if job.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=job.rate, betas=(job.beta, BETA2), eps=EPSILON, fused=True)
    sgd = torch.optim.SGD(net.parameters(), lr=job.rate, momentum=job.beta, dampening=job.beta, fused=True)
    for parameter in net.parameters():
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


class Torch:
    """See `contract.Trainer`."""

    name = "torch"

    def __init__(self, job: Job, threads: int | None = None):
        self.job, self.threads = job, threads or job.threads
        self.X, self.y = torch.from_numpy(job.x), torch.from_numpy(job.y.astype(np.int64))
        self.net = network(job)
        self.optimizer = optimizer(self.net, job)
        self.restart()

    @property
    def rate(self) -> float:
        """The learning rate of the next epoch."""
        return self.optimizer.param_groups[0]["lr"]

    @rate.setter
    def rate(self, rate: float) -> None:
        self.optimizer.param_groups[0]["lr"] = rate

    def restart(self) -> None:
        """Back to the start, and to the trainer's own threads: torch has one setting for all."""
        torch.set_num_threads(self.threads)
        self.steps = 0
        set_parameters(self.net, self.job)
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def batches(self, order: np.ndarray) -> Iterable[tuple[Tensor, Tensor]]:
        """Rows (n, I) and labels (n,) of each step."""
        for pick in torch.from_numpy(order).split(self.job.batch):
            yield self.X[pick], self.y[pick]

    def step(self) -> None:
        """One step of the rule. torch's Adam adds epsilon to the corrected root, fastmlp's to the plain one."""
        self.steps += 1
        if self.job.optimizer == "adam":
            self.optimizer.param_groups[0]["eps"] = EPSILON / (1 - BETA2**self.steps) ** 0.5
        self.optimizer.step()

    def epoch(self, order: np.ndarray | None) -> float:
        """One epoch."""
        total = torch.zeros(())
        for x, y in [(self.X, self.y)] if order is None else self.batches(order):
            loss = nn.functional.cross_entropy(self.net(x), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.step()
            total += loss.detach() * len(y)
        return float(total) / len(self.y)

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        parts = [part for layer in self.net[::2] for part in (layer.weight.detach().T, layer.bias.detach())]
        return np.concatenate([part.numpy().ravel() for part in parts])


class TorchAlone(Torch):
    """On one thread: for small batches torch's second one costs more than it brings."""

    name = "torch, 1 thread"

    def __init__(self, job: Job):
        super().__init__(job, threads=1)


class TorchLoader(Torch):
    """Batches from a DataLoader, as most tutorials have it."""

    name = "torch DataLoader"

    def batches(self, order: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (n, I) and labels (n,) of each step."""
        rows = TensorDataset(self.X, self.y)
        return iter(DataLoader(rows, batch_size=self.job.batch, sampler=order.tolist()))


class TorchAsked:
    """See `contract.Predictor`."""

    name = "torch"

    def __init__(self, job: Job):
        torch.set_num_threads(job.threads)
        self.rows, self.net = job.x, network(job)

    @torch.inference_mode()
    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""
        return torch.softmax(self.net(torch.from_numpy(self.rows)), dim=1).numpy()

    @torch.inference_mode()
    def labels(self) -> np.ndarray:
        """The most probable classes (N,)."""
        return self.net(torch.from_numpy(self.rows)).argmax(dim=1).numpy()


def trainers(job: Job) -> list[Torch]:
    """Sliced tensors; for mini-batches also on one thread, and from a DataLoader."""
    return [Torch(job)] if job.full else [Torch(job), TorchAlone(job), TorchLoader(job)]


def predictors(job: Job) -> list[TorchAsked]:
    """The one way of asking."""
    return [TorchAsked(job)]
