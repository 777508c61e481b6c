"""Feature interaction (Eq. 7–8): DCNv2, cross network and deep network in parallel."""

import flax.linen as nn
import jax.numpy as jnp

from mmctr_jax.config.schema import DCNConfig
from mmctr_jax.models.dropout import Dropout
from mmctr_jax.models.linear import xavier_normal
from mmctr_jax.models.mlp import MLP


class CrossNetwork(nn.Module):
    """c_{l+1} = c_0 ⊙ (W_l c_l + b_l) + c_l, with full matrices (Eq. 7)."""

    layers: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, f_BxF, train: bool):
        c_BxF = f_BxF
        for i in range(self.layers):
            linear = nn.Dense(f_BxF.shape[-1], kernel_init=xavier_normal, dtype=self.dtype, name=f"layer_{i}")
            c_BxF = f_BxF * Dropout(self.dropout)(linear(c_BxF), train) + c_BxF
        return c_BxF


def dcnv2(config: DCNConfig, dtype: jnp.dtype, f_BxF, weight_B, train: bool):
    """f → [c_3 ‖ d_o] (Eq. 8), by the calling model's submodules `cross` and `deep`."""
    cross = CrossNetwork(config.cross_layers, config.cross_dropout, dtype, name="cross")
    deep = MLP(config.deep, dtype, config.deep_dropout, config.batch_norm, name="deep")
    return jnp.concatenate([cross(f_BxF, train), deep(f_BxF, train, weight_B > 0)], axis=-1)
