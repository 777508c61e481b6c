"""Decoupled weight decay (Loshchilov & Hutter 2019), by group of parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from mmctr_jax.settings import NonNegative, Settings

DecayRate = Callable[[Any, jax.Array], float]
"""Path of a parameter in its tree, and the parameter → its decay rate."""


def group_of(path: Any, parameter: jax.Array) -> str | None:
    """`tables` for an embedding table, `matrices` for any other weight matrix, None for biases and norms.

    path: as `jax.tree_util.tree_leaves_with_path` gives it.
    """
    if parameter.ndim != 2:
        return None
    return "matrices" if path[-1].key == "kernel" else "tables"


class WeightDecay(Settings):
    """In each step a weight also loses this share of itself, times the learning rate. Biases and norms lose nothing."""

    tables: NonNegative | None = None
    """Of embedding tables. null: the optimiser's own, 1e-4 with adamw, 1e-3 with lion, else 0."""
    matrices: NonNegative | None = None
    """Of all other weight matrices. null: likewise."""

    def rate(self, default: float) -> DecayRate:
        """The rate of each parameter. default: the optimiser's own."""
        rates = {"tables": self.tables, "matrices": self.matrices, None: 0.0}
        rates = {group: default if rate is None else rate for group, rate in rates.items()}
        return lambda path, parameter: rates[group_of(path, parameter)]


def no_decay(path: Any, parameter: jax.Array) -> float:
    """The `DecayRate` of no weight decay."""
    return 0.0
