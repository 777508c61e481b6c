"""The full model: embeddings → Transformer over the history → DCNv2 → logit."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.dcn import dcnv2
from mmctr_jax.models.mlp import predict_logits
from mmctr_jax.models.sequence import features
from mmctr_jax.models.similarity import cosines, histogram


class MMCTR(nn.Module):
    """Arrays in, logits out; knows no files and no devices.

    `config` is resolved (vocabularies known). `dtype` is that of the computation; parameters are float32.
    """

    config: Config
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> jax.Array:
        """Logits (B,) of a batch (data.loader.Batch) given the item table (data.items.ItemTable)."""
        model = self.config.model
        f_BxF = features(self.config, self.dtype, batch, items, train)
        tiers = histogram(cosines(batch, items, self.config.features), batch["history"], model.dcn.similarity_bins)
        f_BxF = jnp.concatenate([f_BxF, tiers.astype(self.dtype)], axis=-1)
        both = dcnv2(model.dcn, self.dtype, f_BxF, batch["weight"], train)
        return predict_logits(model.head, self.dtype, both, train)
