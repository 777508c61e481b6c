"""What a training changes on the device from step to step, and a checkpoint keeps."""

from __future__ import annotations

from typing import Any

import jax
from flax import struct


@struct.dataclass
class TrainState:
    """All that changes from step to step on the device."""

    params: Any
    """The weights that steps go on from."""
    batch_stats: Any
    """Running means of batch norm; empty without it."""
    opt_state: Any
    step: jax.Array
    """() int32: steps done."""
    rng: jax.Array
    """The run's key; step n draws from fold_in(rng, n), so a resumed step draws what it would have."""
    averaged: Any = None
    """The average of the weights over the steps, if `train.ema` asks for one."""

    @property
    def predicting_params(self) -> Any:
        """The weights that are validated, and that score: averaged ones if there are any."""
        return self.params if self.averaged is None else self.averaged

    def parts(self) -> dict[str, dict[str, Any]]:
        """The parts of a checkpoint: `model`, all that predicting needs, and `optimizer`, the rest.

        The weights in `model` are those that predict. Where these are averaged ones, `optimizer` has the weights that
        steps go on from.
        """
        model = {"params": self.predicting_params, "batch_stats": self.batch_stats}
        optimizer = {"opt_state": self.opt_state, "step": self.step, "rng": self.rng}
        if self.averaged is not None:
            optimizer["params"] = self.params
        return {"model": model, "optimizer": optimizer}

    @classmethod
    def of_parts(cls, model: dict[str, Any], optimizer: dict[str, Any]) -> TrainState:
        """The inverse of `parts`."""
        averaged = {"averaged": model["params"]} if "params" in optimizer else {}
        return cls(**model | optimizer | averaged)
