"""Learning rates: how large the steps of an epoch are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-6  # "adaptive" stops below
PLAIN = ("constant", "invscaling", "adaptive")  # scikit-learn's; the last two are for solver="sgd"
SHAPED = ("linear", "cosine", "one_cycle", "step")  # by the share of all steps that are done
RISE, START, END = 0.3, 1 / 25, 1e-5  # one_cycle: share of the steps that rise, first and last rate over the peak's


@dataclass
class Schedule:
    """The rate of every step, given what has happened so far.

    "constant"; "invscaling": init / (rows seen so far + 1)^power_t, anew each epoch; "adaptive": a fifth whenever
    `slow_down` is called; "linear": init (1 - p), p the share of all steps done; "cosine": init (1 + cos(pi p)) / 2
    (Loshchilov and Hutter, 2017); "one_cycle": up to init over the first 30 %, then down to nearly 0 (Smith and Topin,
    2018); "step": times `decay_factor` every `decay_every` epochs. The first `warmup_epochs` rise from 0 in equal
    steps.
    """

    kind: str
    init: float
    epochs: int = 1  # of the whole training, for cosine and one_cycle
    power_t: float = 0.5
    warmup_epochs: float = 0.0
    decay_every: int = 1
    decay_factor: float = 1.0
    done: int = 0  # epochs
    learning_rate: float = 0.0  # the newest, before warm-up

    def __post_init__(self) -> None:
        self.learning_rate = float(self.init)

    def rates(self, steps: int) -> np.ndarray:
        """The rates (steps,) of the next epoch."""
        first = self.done * steps
        if self.kind in SHAPED:
            p = (first + np.arange(steps)) / (self.epochs * steps)  # (steps,)
            rates = self.init * shape(self.kind, p, self.done // self.decay_every, self.decay_factor)  # (steps,)
            self.learning_rate = float(rates[-1])
        else:
            rates = np.full(steps, self.learning_rate)
        warm = self.warmup_epochs * steps
        if first < warm:
            rates *= np.minimum(1.0, (first + 1 + np.arange(steps)) / warm)  # (steps,)
        return rates

    def epoch_ends(self, seen: int) -> None:
        """An epoch is over, and `seen` rows have been seen so far."""
        self.done += 1
        if self.kind == "invscaling":
            self.learning_rate = float(self.init) / (seen + 1) ** self.power_t

    def slow_down(self) -> bool:
        """Go on with smaller steps where the schedule can; False where training is to stop."""
        if self.kind != "adaptive" or self.learning_rate <= SMALLEST:
            return False
        self.learning_rate /= 5.0
        return True


def shape(kind: str, p: np.ndarray, decays: int, factor: float) -> np.ndarray:
    """Rates over the initial one at the shares p (n,) of all steps."""
    if kind == "step":
        return np.full(p.shape, factor**decays)
    if kind == "linear":
        return 1 - p
    if kind == "cosine":
        return np.asarray((1 + np.cos(np.pi * p)) / 2)
    rising = START + (1 - START) * (1 - np.cos(np.pi * p / RISE)) / 2
    falling = END + (1 - END) * (1 + np.cos(np.pi * (p - RISE) / (1 - RISE))) / 2
    return np.where(p < RISE, rising, falling)
