"""Ablation: the prediction MLP straight on side features, target and the Transformer's outputs."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config import Config
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.masking import attended_positions
from mmctr_jax.models.mlp import predict_logits
from mmctr_jax.models.similarity import cosines
from mmctr_jax.models.transformer import HistoryEncoder


class WithoutDCN(nn.Module):
    """As `MMCTR`."""

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> jax.Array:
        model = self.config.model
        e = Embedding(self.config, self.dtype, name="embedding")(batch, items)
        attended_BxN = attended_positions(batch["history"], model.history_mask)
        cosines_BxNxC = cosines(batch, items, self.config.features)
        encoder = HistoryEncoder(model.transformer, self.dtype, name="encoder")
        sequence = encoder(e.history, e.target, attended_BxN, cosines_BxNxC, train)
        f_BxF = jnp.concatenate([e.side, e.target, sequence], axis=-1)
        return predict_logits(model.head, self.dtype, f_BxF, train)
