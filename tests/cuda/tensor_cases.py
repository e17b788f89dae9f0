"""Nets, data and the oracle's answers for the tests of the tensor-core kernels, and one step of those on the CPU."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import fake_cupy
import numpy as np
import oracle
from fastmlp.kernels.cuda import tensor, tensor_tiles
from fastmlp.kernels.cuda.epoch import Epoch
from tolerance import tolerance

from fastmlp.optimizers import Step

GRADIENT = Step(0, 0, 0, 0, 1, 0, 0, 0)
"""Momentum's numbers that move no parameter and make the state the gradient."""
KB = 1024
SHARED = {75: 64 * KB, 80: 163 * KB, 86: 99 * KB, 89: 99 * KB, 90: 227 * KB, 100: 227 * KB, 120: 99 * KB}  # of a block
PROCESSORS = {80: 108, 86: 84, 89: 128, 90: 132, 100: 148, 120: 170}  # of a large card of each kind
SMALL = {capability: tensor_tiles.Card(capability, 2, SHARED[capability]) for capability in PROCESSORS}
"""Cards with two multiprocessors: a few hundred rows are enough for every way through the kernels."""

REFERENCE = (784, 160, 10)
CASES = [  # net, rows, compute capability: tiles differ by all three
    (REFERENCE, 317, 90),  # a full tile of 160 rows and a part of one, chunks of 112 inputs
    (REFERENCE, 100, 80),  # the last chunk is short
    (REFERENCE, 1, 90),
    ((20, 100, 3), 77, 90),
    ((33, 256, 16), 70, 80),
    ((100, 17, 16), 300, 80),
    ((5, 1, 2), 40, 120),
    ((48, 7, 2), 33, 100),
    ((150, 130, 8), 65, 89),
]


class Problem(NamedTuple):
    """A net, and the rows of a batch among others that it must not touch."""

    sizes: tuple[int, int, int]
    X: np.ndarray  # (M, row_bytes(I)) uint8; what is behind the inputs is no input
    y: np.ndarray  # (M,) int32
    index: np.ndarray  # (N,) int32
    weight: np.ndarray  # (N,) float32
    W: list[np.ndarray]
    b: list[np.ndarray]

    @property
    def parameters(self) -> np.ndarray:
        """All of them in one array (P,)."""
        return np.concatenate([self.W[0].ravel(), self.b[0], self.W[1].ravel(), self.b[1]])

    def rows(self, index: bool) -> np.ndarray:
        """The rows of the batch: those of the index, or the first."""
        return self.index if index else np.arange(len(self.index))

    def split(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of an array (P,), by name."""
        I, H, O = self.sizes
        ends = np.cumsum([I * H, H, H * O])
        return dict(zip(("dW1", "db1", "dW2", "db2"), np.split(flat, ends), strict=True))


def problem(sizes: tuple[int, int, int], n: int, seed: int = 0) -> Problem:
    """Weights are float16's numbers: rounding them is no part of the error, and no hidden unit changes sides for it."""
    (I, H, O), random, M = sizes, np.random.default_rng(seed), n + 13
    X = random.integers(0, 256, (M, tensor_tiles.row_bytes(I))).astype(np.uint8)  # (M, BYTES)
    X[:, :I] *= random.random((M, I)) < 0.4
    W = [random.standard_normal(shape) * np.sqrt(2 / shape[0]) for shape in ((I, H), (H, O))]
    b = [random.standard_normal(units).astype(np.float32) / 10 for units in (H, O)]
    y, index = random.integers(0, O, M).astype(np.int32), random.permutation(M)[:n].astype(np.int32)
    weight = random.uniform(0.5, 1.5, n).astype(np.float32)
    return Problem(sizes, X, y, index, weight, [w.astype(np.float16).astype(np.float32) for w in W], b)


class Result(NamedTuple):
    """What a step leaves."""

    dz1: np.ndarray  # (N, width(H))
    g: np.ndarray  # (P,)
    totals: np.ndarray  # (2,)


class Answer(NamedTuple):
    """What it should leave, and how large the terms of the gradient are."""

    dz1: np.ndarray  # (N, width(H))
    g: np.ndarray  # (P,)
    totals: np.ndarray  # (2,)
    size: np.ndarray  # (P,) what |g| would be about if its terms had random signs: they may cancel


def step(
    case: Problem, card: tensor_tiles.Card, index: bool = True, weight: bool = False, cupy: ModuleType = fake_cupy
) -> Result:
    """The gradient of the batch, by the kernels: on the CPU, or on the GPU of `cupy`."""
    n, put = len(case.index), cupy.asarray
    work, parameters = tensor.allocate(case.sizes, (n,), card), put(case.parameters)
    X, epoch = put(case.X), visits(case.index if index else None, case.weight if weight else None, [GRADIENT], cupy)
    g = cupy.zeros((1, len(case.parameters)), np.float32)
    tensor.halve(work, parameters)
    tensor.forward(work, X, put(case.y), epoch, n, parameters)
    tensor.step(work, X, epoch, n, "momentum", parameters, g)
    assert not work.tickets.get().any()
    return Result(work.dz1.get(), g.get()[0], epoch.totals.get()[0, :2])


def visits(order: np.ndarray | None, weights: np.ndarray | None, table: list[Step], cupy: ModuleType) -> Epoch:
    """An epoch from its start, on the card of `cupy`."""
    put, zeros = cupy.asarray, cupy.zeros
    return Epoch(
        zeros(2, np.int32), None if order is None else put(order), None if weights is None else put(weights),
        put(np.array(table, np.float32)), zeros((len(table), 3)), zeros(1, np.uint64),
    )  # fmt: skip


def answer(case: Problem, index: bool = True, weight: bool = False) -> Answer:
    """The same by the oracle."""
    rows, (I, H, O) = case.rows(index), case.sizes
    x, y, share = case.X[rows, :I] / 255, case.y[rows], case.weight[:, None] if weight else 1.0
    a = oracle.forward(x, case.W, case.b)
    dz2 = (oracle.softmax_fast(a[2]) - np.eye(O)[y]) * share  # (N, O)
    dz1 = (dz2 @ case.W[1].T.astype(float)) * (a[1] > 0)  # (N, H)

    def sums(x: np.ndarray, dz1: np.ndarray, a1: np.ndarray, dz2: np.ndarray) -> np.ndarray:
        return np.concatenate([(x.T @ dz1).ravel(), dz1.sum(0), (a1.T @ dz2).ravel(), dz2.sum(0)])  # (P,)

    size = np.sqrt(sums(*(array**2 for array in (x, dz1, a[1], dz2))))
    totals = np.array([(oracle.losses(a[2], y) * np.ravel(share)).sum(), (a[2].argmax(axis=1) == y).sum()])
    padded = np.pad(dz1, ((0, 0), (0, tensor_tiles.width(H) - H)))
    return Answer(padded, sums(x, dz1, a[1], dz2) / len(y), totals, size / len(y))


def errors(case: Problem, got: Result, want: Answer) -> dict[str, float]:
    """How far each part of the result is off, by its norm, and by how many right answers."""
    off, wanted, sizes = {}, case.split(want.g), case.split(want.size)
    for name, values in case.split(got.g).items():
        scale = max(np.linalg.norm(wanted[name]), np.linalg.norm(sizes[name]))
        off[name] = float(np.linalg.norm(values - wanted[name]) / scale)
    off["dz1"] = float(np.linalg.norm(got.dz1.astype(float) - want.dz1) / np.linalg.norm(want.dz1))
    off["loss"], off["right answers"] = abs(got.totals[0] / want.totals[0] - 1), abs(got.totals[1] - want.totals[1])
    return off


def close(case: Problem, got: Result, want: Answer) -> bool:
    """Whether each part is within rounding to float16 of the oracle's, which changes one answer in 500 at most."""
    off = errors(case, got, want)
    return off.pop("right answers") <= len(case.index) // 500 and max(off.values()) < tolerance("half", np.float32)[0]
