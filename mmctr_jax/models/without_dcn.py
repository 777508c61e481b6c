"""Ablation: the prediction MLP straight on side features, target and the Transformer's outputs."""

from __future__ import annotations

from typing import Literal, Self

import flax.linen as nn

from mmctr_jax.features import Features
from mmctr_jax.models.base import ModelSettings
from mmctr_jax.models.sequence import SequenceModel
from mmctr_jax.models.transformer import TransformerSettings
from mmctr_jax.settings import Width


class WithoutDCN(SequenceModel):
    """The paper's Table 2, "w/o DCNv2"."""

    @nn.compact
    def __call__(self, batch, items, train):
        return self.logits(self.settings.head, self.encoded(batch, items, train), train)


class WithoutDCNSettings(ModelSettings):
    """Ablation: the prediction MLP straight on the Transformer's outputs, target and side features."""

    name: Literal["without_dcn"] = "without_dcn"
    history_mask: Literal["valid", "released"] = "valid"
    """As in the full model."""
    transformer: TransformerSettings = TransformerSettings()
    head: tuple[Width, ...] = (64, 32)
    """Widths of the prediction MLP before its last, single output."""

    module = WithoutDCN
    shares_history = True

    def check(self, features: Features) -> None:
        self.transformer.check(features, self.embedding_dim)

    @property
    def compares_vectors(self) -> bool:
        return self.transformer.similarity

    @property
    def sees_padding(self) -> bool:
        return self.history_mask == "released"

    def narrowed(self, length: int) -> Self:
        return self.model_copy(update={"transformer": self.transformer.narrowed(length)})
