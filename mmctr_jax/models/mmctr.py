"""The full model: embeddings → Transformer over the history → DCNv2 → logit."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config import Config
from mmctr_jax.models.dcn import MLP, CrossNetwork
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.masking import attended_positions
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
        embedding = Embedding(self.config, self.dtype, name="embedding")
        target_BxD = embedding.item(batch["item"], items)
        history_BxNxD = embedding.item(batch["history"], items)
        attended_BxN = attended_positions(batch["history"], model.history_mask)
        encoder = HistoryEncoder(model.transformer, self.dtype, name="encoder")
        sequence = encoder(history_BxNxD, target_BxD, attended_BxN, train)
        f_BxF = jnp.concatenate([embedding.side(batch["side"]), target_BxD, sequence], axis=-1)

        cross = CrossNetwork(model.dcn.cross_layers, model.dcn.cross_dropout, self.dtype, name="cross")
        deep = MLP(model.dcn.deep, self.dtype, model.dcn.deep_dropout, model.dcn.batch_norm, name="deep")
        both = jnp.concatenate([cross(f_BxF, train), deep(f_BxF, train, batch["weight"])], axis=-1)  # Eq. 8
        # Never in bfloat16: its 8 bits would tie scores together, and the loss is computed from them.
        head_dtype = jnp.promote_types(self.dtype, jnp.float32)
        logits_Bx1 = MLP(model.head, head_dtype, outputs=1, name="head")(both, train)  # Eq. 9
        return logits_Bx1[:, 0]
