"""Ablation: DCNv2 on side features, target and the mean of the clicked items."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.dcn import dcnv2
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.mlp import predict_logits
from mmctr_jax.models.similarity import cosines, histogram


class WithoutTransformer(nn.Module):
    """As `MMCTR`."""

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> jax.Array:
        model = self.config.model
        e = Embedding(self.config, self.dtype, name="embedding")(batch, items, train)
        clicks_Bx1 = (batch["history"] != 0).sum(axis=1, keepdims=True)
        mean_BxD = e.history.sum(axis=1) / jnp.maximum(clicks_Bx1, 1).astype(self.dtype)
        cosines_BxNxC = cosines(batch, items, self.config.features)
        tiers = histogram(cosines_BxNxC, batch["history"], model.dcn.similarity_bins).astype(self.dtype)
        f_BxF = jnp.concatenate([e.side, e.target, mean_BxD, tiers], axis=-1)
        both = dcnv2(model.dcn, self.dtype, f_BxF, batch["weight"], train)
        return predict_logits(model.head, self.dtype, both, train)
