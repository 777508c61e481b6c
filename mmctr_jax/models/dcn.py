"""Feature interaction (Eq. 7–8): DCNv2, cross network and deep network in parallel."""

from functools import partial
from typing import Annotated

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field

from mmctr_jax.features import Features
from mmctr_jax.models.base import Model
from mmctr_jax.models.dropout import Dropout
from mmctr_jax.models.linear import xavier_normal
from mmctr_jax.models.mlp import MLP
from mmctr_jax.models.similarity import check_vectors, cosines, histogram
from mmctr_jax.settings import Depth, Rate, Settings, Width


class DCNSettings(Settings):
    """DCNv2 in its parallel structure (Eq. 7–8)."""

    cross_layers: Depth = 3
    """Layers of the cross network."""
    rank: Width | None = None
    """Of the cross layers' matrices: W = U Vᵀ, from F columns to this many and back. null: full, as published."""
    cross_dropout: Rate = 0.0
    """After each cross layer's linear map; the paper's Table 1 has 0.2, the release none."""
    deep: tuple[Width, ...] = (1024, 512, 256)
    """Widths of the parallel deep layers."""
    deep_dropout: Rate = 0.2
    """After each deep layer."""
    batch_norm: bool = False
    """In the deep layers, before the ReLU."""
    similarity_bins: Annotated[int, Field(ge=0, le=1000)] = 0
    """Bins of the histogram of the clicks' cosines with the target, by frozen vectors. 0: none."""

    def check(self, features: Features) -> None:
        """Raises: ValueError if similarities are asked for and no feature has vectors to compare."""
        if self.similarity_bins:
            check_vectors("model.dcn.similarity_bins", features)


class CrossNetwork(nn.Module):
    """c_{l+1} = c_0 ⊙ (W_l c_l + b_l) + c_l (Eq. 7; Wang et al. 2021, arXiv 2008.13535), W_l = U_l V_lᵀ with a rank."""

    layers: int
    rank: int | None
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, f_BxF: jax.Array, train: bool) -> jax.Array:
        """(B, F) → (B, F)."""
        linear = partial(nn.Dense, kernel_init=xavier_normal, dtype=self.dtype)
        c_BxF = f_BxF
        for i in range(self.layers):
            x = c_BxF if self.rank is None else linear(self.rank, use_bias=False, name=f"layer_{i}_narrow")(c_BxF)
            x_BxF = linear(f_BxF.shape[-1], name=f"layer_{i}")(x)
            c_BxF = f_BxF * Dropout(self.dropout)(x_BxF, train) + c_BxF
        return c_BxF


class DCNModel(Model):
    """A model whose features interact in DCNv2; its settings have `dcn` and `head`."""

    def interact(self, f_BxF: jax.Array, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool):
        """f → logits (B,): [c_3 ‖ d_o] (Eq. 8), then the prediction MLP; submodules `cross`, `deep` and `head`.

        With `similarity_bins` the histogram of the clicks' cosines joins f.
        """
        dcn = self.settings.dcn
        if dcn.similarity_bins:
            shares_BxS = histogram(cosines(batch, items, self.features), batch["history"], dcn.similarity_bins)
            f_BxF = jnp.concatenate([f_BxF, shares_BxS.astype(self.dtype)], axis=-1)
        cross = CrossNetwork(dcn.cross_layers, dcn.rank, dcn.cross_dropout, self.dtype, name="cross")
        deep = MLP(dcn.deep, self.dtype, dcn.deep_dropout, dcn.batch_norm, name="deep")
        real_B = batch["weight"] > 0  # rows of weight 0 fill a batch up, and count in no statistics
        both = jnp.concatenate([cross(f_BxF, train), deep(f_BxF, train, real_B)], axis=-1)
        return self.logits(self.settings.head, both, train)
