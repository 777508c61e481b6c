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
    """What the optimisers keep."""
    step: jax.Array
    """() int32: steps done."""
    rng: jax.Array
    """The run's key; step n draws from fold_in(rng, n), so a resumed step draws what it would have."""
    averaged: Any = None
    """The average of the weights over the steps, if `train.ema` asks for one."""

    @property
    def rows_lag(self) -> bool:
        """Whether rows of embedding tables are as of the last step that named them (`training.tables`)."""
        return isinstance(self.opt_state, dict) and "learning_rate" in self.opt_state

    def parts(self, predicting: Any = None) -> dict[str, dict[str, Any]]:
        """The parts of a checkpoint: `model`, all that predicting needs, and `optimizer`, the rest.

        predicting: the weights that are validated, and that score (`training.step.make_predicting`). Where these are
        not the weights that steps go on from, `optimizer` has the latter; and tables as they are, where rows lag.
        """
        if predicting is None:
            predicting = self.params if self.averaged is None else self.averaged
        model = {"params": predicting, "batch_stats": self.batch_stats}
        optimizer = {"opt_state": self.opt_state, "step": self.step, "rng": self.rng}
        if self.averaged is not None:
            optimizer["params"] = self.params
        if self.rows_lag:
            optimizer["tables"] = (self.params if self.averaged is None else self.averaged)["embedding"]
        return {"model": model, "optimizer": optimizer}

    @classmethod
    def of_parts(cls, model: dict[str, Any], optimizer: dict[str, Any]) -> TrainState:
        """The inverse of `parts`."""
        optimizer = dict(optimizer)
        weights, batch_stats = model["params"], model["batch_stats"]
        if "tables" in optimizer:
            weights = weights | {"embedding": optimizer.pop("tables")}
        own = {"averaged": weights} if "params" in optimizer else {"params": weights}
        return cls(batch_stats=batch_stats, **optimizer | own)
