"""Optimisers, learning-rate schedules and weight decay, each with its settings: one class, and one line here."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import BeforeValidator, Discriminator, Tag

from mmctr_jax.optimization.optimizers import LAMB, SGD, Adagrad, Adam, AdamW, Lion, Optimizer
from mmctr_jax.optimization.rows import LazyAdam, RowAdam, RowOptimizer, RowSGD, RowwiseAdagrad
from mmctr_jax.optimization.schedules import Constant, Cosine, OnPlateau, Schedule, Warmup
from mmctr_jax.optimization.weight_decay import WeightDecay
from mmctr_jax.settings import Settings

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "adam": Adam,
    "adamw": AdamW,
    "adagrad": Adagrad,
    "lamb": LAMB,
    "lion": Lion,
    "sgd": SGD,
}
ROW_OPTIMIZERS: dict[str, type[RowOptimizer]] = {
    "adam": RowAdam,
    "lazy_adam": LazyAdam,
    "rowwise_adagrad": RowwiseAdagrad,
    "sgd": RowSGD,
}
SCHEDULES: dict[str, type[Schedule]] = {
    "plateau": OnPlateau,
    "constant": Constant,
    "warmup": Warmup,
    "cosine": Cosine,
}


def _one_of(classes: dict[str, type[Settings]], default: str, key: str = "name") -> Any:
    """The type of a setting that is one of `classes`. A name alone is short for `{key: name}`."""

    def written_out(raw: Any) -> Any:
        return {key: raw} if isinstance(raw, str) else raw

    def name(raw: Any) -> Any:
        return raw.get(key, default) if isinstance(raw, dict) else getattr(raw, key, default)

    union = Union[tuple(Annotated[settings, Tag(name)] for name, settings in classes.items())]  # noqa: UP007
    return Annotated[union, Discriminator(name), BeforeValidator(written_out)]


AnyOptimizer = _one_of(OPTIMIZERS, "adam")
AnyRowOptimizer = _one_of(ROW_OPTIMIZERS, "adam", key="optimizer")
AnySchedule = _one_of(SCHEDULES, "plateau")

__all__ = [
    "OPTIMIZERS",
    "ROW_OPTIMIZERS",
    "SCHEDULES",
    "AnyOptimizer",
    "AnyRowOptimizer",
    "AnySchedule",
    "Optimizer",
    "RowOptimizer",
    "Schedule",
    "WeightDecay",
]
