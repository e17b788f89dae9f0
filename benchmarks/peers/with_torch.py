"""torch, eager: batches sliced from tensors in the order of a permutation, or drawn by a DataLoader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from fastmlp.network import layer_views

from .contract import Dispatched, NotThere
from .jobs import BETA2, EPSILON, Job

VERSIONS = {"torch": torch.__version__}
OPERANDS = {"float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16}  # of products
Batches = Iterable[tuple[Tensor, Tensor]]  # rows (n, I) and labels (n,) of each step


def network(job: Job, device: str = "cpu") -> nn.Sequential:
    """Linear layers with ReLU between them; the last gives the logits."""
    layers = [part for sizes in pairwise(job.sizes) for part in (nn.Linear(*sizes), nn.ReLU())]
    net = nn.Sequential(*layers[:-1]).to(device)
    set_parameters(net, job)
    return net


def set_parameters(net: nn.Sequential, job: Job) -> None:
    """The job's start; torch keeps W as (fan_out, fan_in)."""
    with torch.no_grad():
        for layer, W, b in zip(net[::2], *layer_views(job.start(), job.sizes), strict=True):
            layer.weight.copy_(torch.from_numpy(W).T)
            layer.bias.copy_(torch.from_numpy(b))


def get_parameters(net: nn.Sequential) -> np.ndarray:
    """All parameters (P,)."""
    parts = [part for layer in net[::2] for part in (layer.weight.detach().T, layer.bias.detach())]
    return np.concatenate([part.cpu().numpy().ravel() for part in parts])


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


def loss_of(net: nn.Module, precision: str) -> Callable[[Tensor, Tensor], Tensor]:
    """loss(x, y): mean cross entropy of x (n, I), y (n,); products at the precision called so, by autocast."""
    operand = OPERANDS[precision]

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with torch.autocast(x.device.type, operand, enabled=operand != torch.float32):
            return nn.functional.cross_entropy(net(x), y)

    return loss


def slices(X: Tensor, y: Tensor, order: np.ndarray, batch: int) -> Batches:
    """Picked from the tensors."""
    for pick in torch.from_numpy(order).to(X.device).split(batch):
        yield X[pick], y[pick]


def loader(X: Tensor, y: Tensor, order: np.ndarray, batch: int) -> Batches:
    """From a DataLoader, as most tutorials have it."""
    return iter(DataLoader(TensorDataset(X, y), batch_size=batch, sampler=order.tolist()))


class Torch(Dispatched):
    """See `contract.Trainer`.

    Parameters
    ----------
    job, name
        What is trained, and what it is called in the table.
    threads
        Where they are not the job's.
    device
        "cpu" or "cuda".
    deal
        Makes the batches: `slices` or `loader`.
    compiled
        A mode of torch.compile for the loss, forward and back; None runs it eagerly.
    """

    def __init__(
        self, job: Job, name: str, *, threads: int | None = None, device: str = "cpu",
        deal: Callable[[Tensor, Tensor, np.ndarray, int], Batches] = slices, compiled: str | None = None,
    ):  # fmt: skip
        if job.precision not in OPERANDS:
            raise NotThere(f"autocast to {job.precision} would need a scaled loss: other work")
        self.job, self.name, self.threads, self.deal = job, name, threads or job.threads, deal
        self.X = torch.from_numpy(job.data.x).to(device, OPERANDS[job.precision])
        self.y = torch.from_numpy(job.data.y).to(device, torch.int64)
        self.net = network(job, device)
        self.optimizer = optimizer(self.net, job)
        loss = loss_of(self.net, job.precision)  # compiled, it raises rather than run eagerly
        self.loss = torch.compile(loss, mode=compiled, fullgraph=True, dynamic=False) if compiled else loss
        self.restart()

    def restart(self) -> None:
        """Back to the start, and to the trainer's own threads and precision: torch has one setting for all."""
        torch.set_num_threads(self.threads)
        torch.backends.cuda.matmul.allow_tf32 = self.job.precision == "tf32"
        self.steps = 0
        set_parameters(self.net, self.job)
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def move(self, rate: float) -> None:
        """Apply the rule. torch's Adam adds epsilon to the corrected root, fastmlp's to the plain one."""
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = float(rate)
        if self.job.optimizer == "adam":
            self.optimizer.param_groups[0]["eps"] = EPSILON / (1 - BETA2**self.steps) ** 0.5
        self.optimizer.step()

    def dispatch(self, order: np.ndarray | None, rates: np.ndarray) -> Tensor:
        """One epoch, step by step, perhaps still on its way; its loss will be there."""
        batches = [(self.X, self.y)] if order is None else self.deal(self.X, self.y, order, self.job.batch)
        total = torch.zeros((), device=self.X.device)
        for (x, y), rate in zip(batches, rates, strict=True):
            loss = self.loss(x, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.move(rate)
            total += loss.detach() * len(y)
        return total / len(self.y)

    def parameters(self) -> np.ndarray:
        """All parameters (P,)."""
        return get_parameters(self.net)


class TorchAsked:
    """See `contract.Predictor`."""

    name = "torch"

    def __init__(self, job: Job):
        torch.set_num_threads(job.threads)
        self.rows, self.net = job.data.x, network(job)

    @torch.inference_mode()
    def proba(self) -> np.ndarray:
        """Probabilities (N, O)."""
        return torch.softmax(self.net(torch.from_numpy(self.rows)), dim=1).numpy()

    @torch.inference_mode()
    def labels(self) -> np.ndarray:
        """The most probable classes (N,)."""
        return self.net(torch.from_numpy(self.rows)).argmax(dim=1).numpy()


def trainers(job: Job, library: str) -> list[Torch]:
    """Sliced tensors; for mini-batches also on one thread, where its second one may not pay, and from a DataLoader."""
    name = "torch" if job.precision == "float32" else f"torch {job.precision} autocast"
    if job.full:
        return [Torch(job, name)]
    return [Torch(job, name), Torch(job, f"{name}, 1 thread", threads=1), Torch(job, f"{name} DataLoader", deal=loader)]


def predictors(job: Job, library: str) -> list[TorchAsked]:
    """The one way of asking."""
    return [TorchAsked(job)]
