"""Baseline: Deep Interest Network (Zhou et al. 2018, arXiv 1706.06978), as the challenge's baseline has it."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.mlp import MLP, predict_logits


class DIN(nn.Module):
    """As `MMCTR`. Clicks are weighed by an MLP of click and target, without softmax, and summed."""

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> jax.Array:
        model = self.config.model
        e = Embedding(self.config, self.dtype, name="embedding")(batch, items, train)
        real_BxN, counts_B = batch["history"] != 0, batch["weight"] > 0
        target_BxNxD = jnp.broadcast_to(e.target[:, None], e.history.shape)
        pairs = jnp.concatenate([target_BxNxD, e.history, target_BxNxD - e.history, target_BxNxD * e.history], axis=-1)
        attention = MLP(model.attention, self.dtype, outputs=1, activation=model.activation, name="attention")
        weights_BxNx1 = attention(pairs, train, real_BxN & counts_B[:, None])
        pooled_BxD = jnp.where(real_BxN[..., None], weights_BxNx1 * e.history, 0).sum(axis=1)
        x = jnp.concatenate([e.side, e.target, pooled_BxD], axis=-1)
        deep = MLP(model.deep, self.dtype, model.dropout, model.batch_norm, activation=model.activation, name="deep")
        return predict_logits((), self.dtype, deep(x, train, counts_B), train)
