"""The full model: embeddings → Transformer over the history → DCNv2 → logit."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config import Config
from mmctr_jax.models.dcn import dcnv2
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.masking import attended_positions
from mmctr_jax.models.mlp import predict_logits
from mmctr_jax.models.similarity import cosines, histogram
from mmctr_jax.models.transformer import HistoryEncoder


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
        e = Embedding(self.config, self.dtype, name="embedding")(batch, items)
        attended_BxN = attended_positions(batch["history"], model.history_mask)
        cosines_BxNxC = cosines(batch, items, self.config.features)
        encoder = HistoryEncoder(model.transformer, self.dtype, name="encoder")
        sequence = encoder(e.history, e.target, attended_BxN, cosines_BxNxC, train)
        tiers = histogram(cosines_BxNxC, batch["history"], model.dcn.similarity_bins).astype(self.dtype)
        f_BxF = jnp.concatenate([e.side, e.target, sequence, tiers], axis=-1)
        both = dcnv2(model.dcn, self.dtype, f_BxF, batch["weight"], train)
        return predict_logits(model.head, self.dtype, both, train)
