"""The published model at its published sizes, on made-up data of MicroLens' shape, ready to be measured."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import flops
from mmctr_jax.config import Config, load_config
from mmctr_jax.data.cache import Split
from mmctr_jax.data.lengths import training_lengths
from mmctr_jax.data.loader import history_lengths, train_batches
from mmctr_jax.devices.sharding import make_mesh, on_devices, put_replicated
from mmctr_jax.training.scoring import make_score
from mmctr_jax.training.step import init_state, make_train_step, narrowed, parameter_shapes

PUBLISHED = Path(__file__).parents[1] / "configs" / "microlens_1m.yaml"
LEARNING_RATE = np.float32(5e-4)


def published_config(*overrides: str) -> Config:
    """The published configuration, with `section.key=value` changes."""
    return load_config(PUBLISHED, overrides)


class MeasuredModel:
    """The model of `config`, trained and scored as train.py and predict.py do, but for files and reports."""

    def __init__(self, config: Config, items: dict[str, np.ndarray]):
        self.config, self.mesh = config, make_mesh()
        self.items = put_replicated(items, self.mesh)
        self.train_step = make_train_step(config, self.mesh)
        self.state = init_state(config, self.items, self.mesh)

    def adam_bytes(self, length: int) -> int:
        """The traffic of an update for histories of at most `length` clicks (`flops.adam_bytes`)."""
        shapes = parameter_shapes(narrowed(self.config, length), self.items)
        whole, part = (sum(math.prod(x.shape) for x in jax.tree.leaves(t)) for t in (self.state.params, shapes))
        return flops.adam_bytes(whole, part)

    def step(self, batch: dict[str, Any]) -> jax.Array:
        """One training step on a batch that is on the devices; returns its loss, not waited for."""
        self.state, metrics = self.train_step(self.state, batch, self.items, LEARNING_RATE)
        return metrics["loss"]

    def train(self, split: Split) -> float:
        """An epoch of steps, loading included, each loss read one step late; returns the last one."""
        train, lengths = (
            self.config.train,
            training_lengths(self.config.model, self.config.train, history_lengths(split)),
        )
        batches = train_batches(split, batch_size=train.batch_size, lengths=lengths, seed=1, epochs=1)
        pending = None
        for batch in on_devices(batches, self.mesh):
            loss = self.step(batch)
            if pending is not None:
                float(pending)
            pending = loss
        return float(pending)

    @cached_property
    def _score(self):
        return make_score(self.config, self.mesh)

    def score(self, split: Split) -> np.ndarray:
        """(rows,) logits, loading included."""
        return self._score(self.state.params, self.state.batch_stats, split, self.items)
