"""Early stopping and the learning rate, both driven by the validation metric that `train.monitor` names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmctr_jax.config import TrainConfig


@dataclass
class Plateau:
    """What is remembered from one validation to the next."""

    learning_rate: float  # before the schedule's factor
    best: float | None = None  # of the metric; None: not finite yet
    best_step: int | None = None
    bad_validations: int = 0  # since the last improvement

    def update(self, value: float | None, step: int, config: TrainConfig) -> bool:
        """Takes the metric of a validation; returns whether it is an improvement. NaN and None never are.

        Without one, if that is what the schedule does, the learning rate falls by `lr_factor`, not below
        `min_learning_rate`.
        """
        sign = -1 if config.monitor == "logloss" else 1
        least = float("-inf") if self.best is None else sign * self.best + config.min_delta
        if value is not None and sign * value > least:
            self.best, self.best_step, self.bad_validations = value, step, 0
            return True
        self.bad_validations += 1
        if config.schedule.falls_on_plateaus:
            floor = min(config.min_learning_rate, self.learning_rate)
            self.learning_rate = max(self.learning_rate * config.lr_factor, floor)
        return False

    @classmethod
    def restored(cls, values: dict[str, Any]) -> Plateau:
        """What a checkpoint remembers of it; earlier versions wrote best_auc."""
        return cls(**{"best" if name == "best_auc" else name: value for name, value in values.items()})

    def exhausted(self, config: TrainConfig) -> bool:
        """Whether training should stop: `patience` validations in a row brought no improvement."""
        return self.bad_validations >= config.patience
