"""Feature interaction (Eq. 7–8): DCNv2, cross network and deep network in parallel; and the prediction MLP."""

import flax.linen as nn
import jax.numpy as jnp

_xavier_normal = nn.initializers.xavier_normal()


class CrossNetwork(nn.Module):
    """c_{l+1} = c_0 ⊙ (W_l c_l + b_l) + c_l, with full matrices (Eq. 7)."""

    layers: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, f_BxF, train: bool):
        c_BxF = f_BxF
        for i in range(self.layers):
            linear = nn.Dense(f_BxF.shape[-1], kernel_init=_xavier_normal, dtype=self.dtype, name=f"layer_{i}")
            inner_BxF = nn.Dropout(self.dropout, deterministic=not train)(linear(c_BxF))
            c_BxF = f_BxF * inner_BxF + c_BxF
        return c_BxF


class MLP(nn.Module):
    """Linear, optional batch norm, ReLU, dropout per width; `outputs` adds a last plain Linear.

    `weight_B` keeps rows of weight 0 out of the batch norm's statistics.
    """

    widths: tuple[int, ...]
    dtype: jnp.dtype
    dropout: float = 0.0
    batch_norm: bool = False
    outputs: int | None = None

    @nn.compact
    def __call__(self, x, train: bool, weight_B=None):
        for i, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=_xavier_normal, dtype=self.dtype, name=f"layer_{i}")(x)
            if self.batch_norm:
                mask = None if weight_B is None else (weight_B > 0)[:, None]
                norm_dtype = jnp.promote_types(self.dtype, jnp.float32)
                norm = nn.BatchNorm(momentum=0.9, epsilon=1e-5, dtype=norm_dtype, name=f"norm_{i}")
                x = norm(x, use_running_average=not train, mask=mask).astype(self.dtype)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        if self.outputs is not None:
            x = nn.Dense(self.outputs, kernel_init=_xavier_normal, dtype=self.dtype, name="out")(x)
        return x
