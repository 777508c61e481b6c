"""The full model: embeddings → Transformer over the history → DCNv2 → logit."""

from __future__ import annotations

from typing import Literal, Self

import flax.linen as nn

from mmctr_jax.features import Features
from mmctr_jax.models.base import ModelSettings
from mmctr_jax.models.dcn import DCNModel, DCNSettings
from mmctr_jax.models.sequence import SequenceModel
from mmctr_jax.models.transformer import TransformerSettings
from mmctr_jax.settings import Width


class MMCTR(SequenceModel, DCNModel):
    """The winning system of the challenge (arXiv 2505.03543)."""

    @nn.compact
    def __call__(self, batch, items, train):
        return self.interact(self.encoded(batch, items, train), batch, items, train)


class MMCTRSettings(ModelSettings):
    """The full model: Transformer and DCNv2."""

    name: Literal["mmctr"] = "mmctr"
    history_mask: Literal["valid", "released"] = "valid"
    """Which positions are attended to: the clicks, or, as released, the padding; see "The padding mask" in the docs."""
    transformer: TransformerSettings = TransformerSettings()
    dcn: DCNSettings = DCNSettings()
    head: tuple[Width, ...] = (64, 32)
    """Widths of the prediction MLP before its last, single output."""

    module = MMCTR
    shares_history = True

    def check(self, features: Features) -> None:
        self.transformer.check(features, self.embedding_dim)
        self.dcn.check(features)

    @property
    def compares_vectors(self) -> bool:
        return self.transformer.similarity or self.dcn.similarity_bins > 0

    @property
    def sees_padding(self) -> bool:
        return self.history_mask == "released"

    @property
    def has_batch_statistics(self) -> bool:
        return self.dcn.batch_norm

    def narrowed(self, length: int) -> Self:
        # Without deep layers the prediction MLP sees f twice: as c_3, and as it is.
        return self.model_copy(update={"transformer": self.transformer.narrowed(length)}) if self.dcn.deep else self
