"""An estimator's optimizer: its rule, its rate, and what it remembers from one call to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastmlp.backends.base import Learner
from fastmlp.estimators.engine import Engine
from fastmlp.optimizers import DECAY, Settings
from fastmlp.schedules import PLAIN, Schedule


@dataclass
class Optimizer:
    """Made anew by fit; partial_fit goes on with it."""

    rule: str
    settings: Settings
    schedule: Schedule
    state: np.ndarray | None = None  # (S, P) of a learner that is no more
    steps: int = 0  # it took

    @property
    def learning_rate(self) -> float:
        """The newest rate, before warm-up and Adam's bias correction."""
        return self.schedule.learning_rate

    def learner(self, engine: Engine) -> Learner:
        """The engine's learner; a new one goes on where the one before it was."""
        return engine.learner or engine.new_learner(self.rule, self.settings, self.state, self.steps)

    def saved(self, engine: Engine) -> Optimizer:
        """A copy that holds the state of the engine's learner."""
        if engine.learner is None:
            return self
        state = np.array(engine.backend.to_host(engine.learner.state))  # (S, P)
        return replace(self, schedule=replace(self.schedule), state=state, steps=engine.learner.steps)


def new_optimizer(model: Any, seed: int) -> Optimizer:
    """The optimizer that an estimator's parameters describe. `seed` is of what dropout leaves out."""
    sgd = model.solver == "sgd"
    rule = model.solver
    if sgd and model.momentum:
        rule = "heavy_ball_nesterov" if model.nesterovs_momentum else "heavy_ball"
    settings = Settings(
        beta=float(model.momentum if sgd else model.beta_1), beta2=float(model.beta_2), epsilon=float(model.epsilon),
        weight_decay=float(DECAY if model.weight_decay is None else model.weight_decay) if rule == "adamw" else 0.0,
        clip=float(model.clip_norm or 0.0), seed=seed,
    )  # fmt: skip
    kind = model.learning_rate if sgd or model.learning_rate not in PLAIN else "constant"
    schedule = Schedule(
        kind, float(model.learning_rate_init), int(model.max_iter), float(model.power_t), float(model.warmup_epochs),
        int(model.decay_every), float(model.decay_factor),
    )  # fmt: skip
    return Optimizer(rule, settings, schedule)
