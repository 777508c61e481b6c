"""What the models with a Transformer share: a batch → f (Eq. 7)."""

import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.masking import attended_positions, stand_in
from mmctr_jax.models.similarity import cosines
from mmctr_jax.models.transformer import HistoryEncoder


def features(
    config: Config, dtype: jnp.dtype, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool
) -> jax.Array:
    """f (B, F) = [e_side ‖ e_target ‖ S_o], by the calling model's submodules `embedding` and `encoder`."""
    model = config.model
    kept_BxN = attended_BxN = attended_positions(batch["history"], model.history_mask)
    if model.history_mask == "released" and not train:
        batch = batch | {"history": stand_in(batch["history"])}
        attended_BxN = attended_positions(batch["history"], model.history_mask)
    e = Embedding(config, dtype, name="embedding")(batch, items, train)
    encoder = HistoryEncoder(model.transformer, dtype, name="encoder")
    cosines_BxNxC = cosines(batch, items, config.features)
    sequence = encoder(e.history, e.target, attended_BxN, kept_BxN, cosines_BxNxC, train)
    return jnp.concatenate([e.side, e.target, sequence], axis=-1)
