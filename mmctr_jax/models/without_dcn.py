"""Ablation: the prediction MLP straight on side features, target and the Transformer's outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.mlp import predict_logits
from mmctr_jax.models.sequence import features


class WithoutDCN(nn.Module):
    """As `MMCTR`."""

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> jax.Array:
        f_BxF = features(self.config, self.dtype, batch, items, train)
        return predict_logits(self.config.model.head, self.dtype, f_BxF, train)
