"""The options of a training, checked when they are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.errors import OptionError
from fastmlp.network import Network
from fastmlp.optimizers import DECAY, find
from fastmlp.values import real, share, threads_possible, whole

if TYPE_CHECKING:
    from fastmlp.model import Model

PRECISIONS = ("float32", "float64", "tf32", "float16", "bfloat16")
SCHEDULES = ("constant", "linear", "cosine", "one_cycle")
WIDEST = 2**40  # units of a layer; fewer may still be too many for the memory
Callback = Callable[["Model"], object]


@dataclass(frozen=True)
class Options:
    """What a training hangs on beside its data; `fastmlp.train` explains each.

    Raises OptionError for an impossible value, naming the option, what was expected and what came.
    """

    validation: Any = None
    hidden: int | Sequence[int] = (160,)
    backend: str = "auto"
    epochs: int | None = None
    batch_size: int | str | None = None
    optimizer: str = "momentum"
    learning_rate: float | None = None
    beta: float = 0.9
    precision: str = "float32"
    scale: str | None = None
    seed: int = 0
    threads: int | None = None
    strict: bool = False
    callbacks: Sequence[Callback] = ()
    device: int = 0
    activation: str | Sequence[str] = "relu"
    dropout: float = 0.0
    l2: float = 0.0
    weight_decay: float | None = None
    clip: float | None = None
    schedule: str = "constant"
    warmup: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        rate = self.rate
        for name, value, good, expected in (
            ("hidden", self.widths, all(whole(n, 1) for n in self.widths), "whole numbers from 1, one a hidden layer"),
            (
                "hidden",
                self.widths,
                all(n < WIDEST for n in self.widths if whole(n, 1)),
                f"layers of fewer than {WIDEST:,} units",
            ),
            ("epochs", self.epochs, self.epochs is None or whole(self.epochs, 1), "a whole number from 1"),
            (
                "batch_size",
                self.batch_size,
                self.batch_size is None or whole(self.batch_size, 1) or self.batch_size == "full",
                "a whole number from 1, or 'full'",
            ),
            ("learning_rate", rate, real(rate) and rate > 0, "a finite number above 0"),
            ("beta", self.beta, real(self.beta) and 0 <= self.beta < 1, "a number from 0 to below 1"),
            (
                "precision",
                self.precision,
                isinstance(self.precision, str) and self.precision in PRECISIONS,
                " or ".join(PRECISIONS),
            ),
            ("scale", self.scale, self.scale is None or self.scale == "standard", "None or 'standard'"),
            ("seed", self.seed, whole(self.seed, 0) and self.seed < 2**32, "a whole number from 0 to below 2**32"),
            (
                "callbacks",
                self.callbacks,
                isinstance(self.callbacks, Sequence) and all(map(callable, self.callbacks)),
                "a sequence of functions",
            ),
            ("threads", self.threads, threads_possible(self.threads), "a whole number from 1, or None"),
            ("device", self.device, whole(self.device, 0), "a whole number from 0"),
            ("dropout", self.dropout, share(self.dropout), "a number from 0 to below 1"),
            ("l2", self.l2, real(self.l2) and self.l2 >= 0, "a finite number from 0"),
            (
                "weight_decay",
                self.weight_decay,
                self.weight_decay is None or (real(self.weight_decay) and self.weight_decay >= 0),
                "a finite number from 0, or None",
            ),
            (
                "clip",
                self.clip,
                self.clip is None or (real(self.clip) and self.clip > 0),
                "a finite number above 0, or None",
            ),
            (
                "schedule",
                self.schedule,
                isinstance(self.schedule, str) and self.schedule in SCHEDULES,
                f"one of {', '.join(SCHEDULES)}",
            ),
            ("warmup", self.warmup, real(self.warmup) and self.warmup >= 0, "a number of epochs from 0"),
            ("label_smoothing", self.label_smoothing, share(self.label_smoothing), "a number from 0 to below 1"),
        ):
            if not good:
                raise OptionError(f"{name}: expected {expected}; got {value!r}")
        for wrong, message in (
            (
                self.weight_decay is not None and self.optimizer != "adamw",
                f"weight_decay: expected optimizer='adamw', got {self.optimizer!r}; use adamw, or l2",
            ),
            (self.dropout and not self.widths, "dropout: expected hidden units to leave out, got none; set hidden"),
            (
                self.warmup and self.schedule == "one_cycle",
                "warmup: expected 0, since schedule='one_cycle' has a warm-up of its own; leave one of them out",
            ),
            (
                self.epochs is not None and 0 < self.epochs <= self.warmup,
                f"warmup: expected fewer epochs than the {self.epochs} of the training; got {self.warmup!r}",
            ),
        ):
            if wrong:
                raise OptionError(message)
        _ = self.network(1, 1).kinds  # refuses an unknown activation, and too many or too few

    def network(self, features: int, classes: int) -> Network:
        """The network of these options, for rows of so many columns and classes."""
        numbers = (float(self.label_smoothing), 0.0, 0.0) if self.label_smoothing else ()
        several = isinstance(self.activation, Sequence) and not isinstance(self.activation, str)
        activation: Any = tuple(self.activation) if several else self.activation
        sizes = (features, *map(int, self.widths), classes)
        return Network(sizes, activation, numbers=numbers, dropout=float(self.dropout))

    @property
    def decay(self) -> float:
        """AdamW's weight decay, its own where none was given; 0 for the other rules."""
        if self.optimizer != "adamw":
            return 0.0
        return DECAY if self.weight_decay is None else float(self.weight_decay)

    @cached_property
    def widths(self) -> tuple[Any, ...]:
        """Units of each hidden layer."""
        hidden = self.hidden.tolist() if isinstance(self.hidden, np.ndarray) else self.hidden
        several = isinstance(hidden, Sequence) and not isinstance(hidden, str)
        return tuple(hidden) if several else (hidden,)  # type: ignore[arg-type]

    @property
    def rate(self) -> Any:
        """The learning rate, the optimizer's own where none was given. Raises OptionError for an unknown optimizer."""
        rule = find(self.optimizer)
        return rule.learning_rate if self.learning_rate is None else self.learning_rate
