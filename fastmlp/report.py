"""What ran: the facts of a training run that its numbers depend on."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any


@dataclass
class Report:
    """Kept with the model and in its file."""

    backend: str  # the one that ran
    requested: str  # the one asked for
    reason: str  # why this one ran
    threads: int | None  # CPU threads at most; None where the library does not say
    precision: str  # type of the parameters and the arithmetic
    seed: int
    optimizer: str
    learning_rate: float
    beta: float
    batch_size: int
    rows: int  # training rows
    validation_rows: int
    epochs: int  # whole epochs done
    stopped: str  # why training ended
    blas: str | None = None
    device: str | None = None  # the GPU, where one ran
    launches: str | None = None  # how its kernels were launched; why, where it was one by one
    versions: dict[str, str] = field(default_factory=dict)
    l2: float = 0.0
    weight_decay: float = 0.0  # of adamw
    clip: float = 0.0  # 0: no gradient is shortened
    schedule: str = "constant"  # of the learning rate
    warmup: float = 0.0  # epochs

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, ready for JSON."""
        return asdict(self)


def versions(libraries: dict[str, str]) -> dict[str, str]:
    """fastmlp's and Python's versions before those of the libraries that ran."""
    return {"fastmlp": own_version(), "python": platform.python_version(), **libraries}


@cache
def own_version() -> str:
    """fastmlp's version, looked up once: that takes longer than some networks do."""
    from importlib.metadata import version  # slow to import, and not needed to `import fastmlp`

    return version("fastmlp")
