"""Baseline: Deep Interest Network (Zhou et al. 2018, arXiv 1706.06978), as the challenge's baseline has it."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from mmctr_jax.models.base import Model, ModelSettings
from mmctr_jax.models.linear import PairDense
from mmctr_jax.models.mlp import MLP
from mmctr_jax.settings import Rate, Width


class DIN(Model):
    """Clicks are weighed by an MLP of click and target, without softmax, and summed."""

    @nn.compact
    def __call__(self, batch, items, train):
        settings = self.settings
        e = self.embedded(batch, items, train)
        click_BxN = batch["history"] != 0
        real_B = batch["weight"] > 0  # rows of weight 0 fill a batch up, and count in no statistics
        attention = MLP(
            settings.attention,
            self.dtype,
            outputs=1,
            activation=settings.activation,
            first=PairDense,
            name="attention",
        )
        weights_BxNx1 = attention((e.target, e.history), train, click_BxN & real_B[:, None])
        pooled_BxD = jnp.where(click_BxN[..., None], weights_BxNx1 * e.history, 0).sum(axis=1)
        x = jnp.concatenate([e.side, e.target, pooled_BxD], axis=-1)
        deep = MLP(
            settings.deep,
            self.dtype,
            settings.dropout,
            settings.batch_norm,
            activation=settings.activation,
            name="deep",
        )
        return self.logits((), deep(x, train, real_B), train)


class DINSettings(ModelSettings):
    """Baseline: Deep Interest Network. The paper trains it with learning rate 1e-3."""

    name: Literal["din"] = "din"
    attention: tuple[Width, ...] = (512, 256)
    """Widths of the MLP that weighs each click."""
    deep: tuple[Width, ...] = (1024, 512, 256)
    """Widths of the deep layers."""
    activation: Literal["relu", "dice"] = "relu"
    """In both."""
    dropout: Rate = 0.0
    """In the deep layers."""
    batch_norm: bool = True
    """In the deep layers, before the activation."""

    module = DIN

    @property
    def has_batch_statistics(self) -> bool:
        return self.batch_norm or self.activation == "dice"
