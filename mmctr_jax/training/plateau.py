"""Early stopping and the learning rate, both driven by the validation AUC."""

from dataclasses import dataclass

from mmctr_jax.config import TrainConfig


@dataclass
class Plateau:
    """What is remembered from one validation to the next."""

    learning_rate: float  # before the schedule's factor
    best_auc: float | None = None  # None: no finite AUC yet
    best_step: int | None = None
    bad_validations: int = 0  # since the last improvement

    def update(self, auc: float, step: int, config: TrainConfig) -> bool:
        """Takes a validation AUC; returns whether it is an improvement. NaN never is.

        Without one, if that is what the schedule does, the learning rate falls by `lr_factor`, not below
        `min_learning_rate`.
        """
        if auc > (float("-inf") if self.best_auc is None else self.best_auc + config.min_delta):
            self.best_auc, self.best_step, self.bad_validations = auc, step, 0
            return True
        self.bad_validations += 1
        if config.schedule.falls_on_plateaus:
            floor = min(config.min_learning_rate, self.learning_rate)
            self.learning_rate = max(self.learning_rate * config.lr_factor, floor)
        return False

    def exhausted(self, config: TrainConfig) -> bool:
        """Whether training should stop: `patience` validations in a row brought no improvement."""
        return self.bad_validations >= config.patience
