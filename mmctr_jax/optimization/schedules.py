"""Schedules: how the learning rate changes over training. One class each, with its settings.

A new one is a class here and a line in `mmctr_jax.optimization`.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from mmctr_jax.settings import NonNegative, Positive, Settings

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Schedule(Settings):
    """Multiplies `train.learning_rate`. Computed on the host, so that a resumed run has the rates it would have had."""

    name: str

    falls_on_plateaus: ClassVar[bool] = False
    """Whether a validation without improvement lowers the learning rate."""

    def factor(self, epoch: float) -> float:
        """What the learning rate is multiplied by in the step with which `epoch` epochs are done (fractional)."""
        return 1.0

    def resolved(self, epochs: int) -> Self:
        """With what `train.epochs` decides filled in. Raises: ValueError, naming the setting, if it does not fit."""
        return self


class OnPlateau(Schedule):
    """Falls by `train.lr_factor` on every validation without improvement, not below `train.min_learning_rate`."""

    name: Literal["plateau"] = "plateau"

    falls_on_plateaus = True


class Constant(Schedule):
    """Stays what it is."""

    name: Literal["constant"] = "constant"


class Warmup(Schedule):
    """Rises in proportion to the steps done, then stays."""

    name: Literal["warmup"] = "warmup"
    warmup_epochs: Positive = 1.0
    """How long it rises: epochs, may be a fraction."""

    def factor(self, epoch: float) -> float:
        return min(1.0, epoch / self.warmup_epochs)


class Cosine(Schedule):
    """Falls as half a cosine (Loshchilov & Hutter 2017), after a warm-up if one is asked for."""

    name: Literal["cosine"] = "cosine"
    epochs: Positive | None = None
    """When it ends to fall, warm-up included: epochs, may be a fraction. null: `train.epochs`; a run that is resumed
    with another `train.epochs` must be told the one that it began with."""
    warmup_epochs: NonNegative = 0.0
    """How long it rises at first, in proportion to the steps done: epochs, may be a fraction. 0: it does not."""
    final_factor: Share = 0.0
    """What is left of the learning rate in the end, as a share."""

    def factor(self, epoch: float) -> float:
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        done = min(1.0, (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))
        return self.final_factor + (1 - self.final_factor) * (1 + math.cos(math.pi * done)) / 2

    def resolved(self, epochs: int) -> Cosine:
        end = float(epochs) if self.epochs is None else self.epochs
        if self.warmup_epochs >= end:
            raise ValueError(
                f"train.schedule.warmup_epochs {self.warmup_epochs:g} leaves none of the {end:g} epochs of the "
                "schedule to fall in; lower it"
            )
        return self.model_copy(update={"epochs": end})
