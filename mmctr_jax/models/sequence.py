"""What the models with a Transformer share: a batch → f (Eq. 7)."""

import jax
import jax.numpy as jnp

from mmctr_jax.models.base import Model
from mmctr_jax.models.masking import attended_positions, stand_in
from mmctr_jax.models.similarity import cosines
from mmctr_jax.models.transformer import HistoryEncoder


class SequenceModel(Model):
    """A model with a Transformer over the history; its settings have `history_mask` and `transformer`."""

    def encoded(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> jax.Array:
        """f (B, F) = [e_side ‖ e_target ‖ S_o]; submodules `embedding` and `encoder`."""
        mask = self.settings.history_mask
        kept_BxN = attended_BxN = attended_positions(batch["history"], mask)
        if mask == "released" and not train and not self.features.clicks:  # whose values would have to stand in, too
            batch = batch | {"history": stand_in(batch["history"])}
            attended_BxN = attended_positions(batch["history"], mask)
        e = self.embedded(batch, items, train)
        encoder = HistoryEncoder(self.settings.transformer, self.dtype, name="encoder")
        compared = self.settings.transformer.similarity
        cosines_BxNxC = cosines(batch, items, self.features) if compared else None
        sequence = encoder(e.history, e.target, attended_BxN, kept_BxN, cosines_BxNxC, train)
        return jnp.concatenate([e.side, e.target, sequence], axis=-1)
