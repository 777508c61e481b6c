"""Ablation: DCNv2 on side features, target and the mean of the clicked items."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from mmctr_jax.features import Features
from mmctr_jax.models.base import ModelSettings
from mmctr_jax.models.dcn import DCNModel, DCNSettings
from mmctr_jax.settings import Width


class WithoutTransformer(DCNModel):
    """The paper's Table 2, "w/o Transformer"."""

    @nn.compact
    def __call__(self, batch, items, train):
        e = self.embedded(batch, items, train)
        clicks_Bx1 = (batch["history"] != 0).sum(axis=1, keepdims=True)
        mean_BxD = e.history.sum(axis=1) / jnp.maximum(clicks_Bx1, 1).astype(self.dtype)
        return self.interact(jnp.concatenate([e.side, e.target, mean_BxD], axis=-1), batch, items, train)


class WithoutTransformerSettings(ModelSettings):
    """Ablation: the mean of the clicked items in the Transformer's place."""

    name: Literal["without_transformer"] = "without_transformer"
    dcn: DCNSettings = DCNSettings()
    head: tuple[Width, ...] = (64, 32)
    """Widths of the prediction MLP before its last, single output."""

    module = WithoutTransformer

    def check(self, features: Features) -> None:
        self.dcn.check(features)

    @property
    def compares_vectors(self) -> bool:
        return self.dcn.similarity_bins > 0

    @property
    def has_batch_statistics(self) -> bool:
        return self.dcn.batch_norm
