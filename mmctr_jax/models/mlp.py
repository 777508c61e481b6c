"""Multi-layer perceptrons: the deep network, the prediction MLP, DIN's attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.models.dropout import Dropout
from mmctr_jax.models.linear import xavier_normal


def _norm(dtype: jnp.dtype, train: bool, **options) -> nn.BatchNorm:
    """Batch norm; statistics never in bfloat16."""
    dtype = jnp.promote_types(dtype, jnp.float32)
    return nn.BatchNorm(use_running_average=not train, dtype=dtype, **options)


class Dice(nn.Module):
    """p·x + α·(1 − p)·x with p = sigmoid of the batch-normalised x (Zhou et al. 2018, Eq. 9); α learns, from 0."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x, train: bool, mask=None):
        norm = _norm(self.dtype, train, momentum=0.99, epsilon=1e-9, use_bias=False, use_scale=False, name="norm")
        p = jax.nn.sigmoid(norm(x, mask=mask)).astype(self.dtype)
        alpha = self.param("alpha", nn.initializers.zeros, x.shape[-1:]).astype(self.dtype)
        return p * x + alpha * (1 - p) * x


class MLP(nn.Module):
    """Linear, optional batch norm, activation, dropout per width; `outputs` adds a last plain Linear.

    activation: relu | dice. first: the linear map of the first width, for inputs that are no array.
    """

    widths: tuple[int, ...]
    dtype: jnp.dtype
    dropout: float = 0.0
    batch_norm: bool = False
    outputs: int | None = None
    activation: str = "relu"
    first: type[nn.Module] = nn.Dense

    @nn.compact
    def __call__(self, x, train: bool, counts=None):
        """(..., in) → (..., out). `counts` (...,) bool: which of them batch statistics are taken over; null: all."""
        mask = None
        if counts is not None:  # where none counts, all do: a mean over nothing is NaN
            mask = (counts | ~counts.any())[..., None]
        for i, width in enumerate(self.widths):
            linear = self.first if i == 0 else nn.Dense
            x = linear(width, kernel_init=xavier_normal, dtype=self.dtype, name=f"layer_{i}")(x)
            if self.batch_norm:
                norm = _norm(self.dtype, train, momentum=0.9, epsilon=1e-5, name=f"norm_{i}")
                x = norm(x, mask=mask).astype(self.dtype)
            x = nn.relu(x) if self.activation == "relu" else Dice(self.dtype, name=f"dice_{i}")(x, train, mask)
            x = Dropout(self.dropout)(x, train)
        if self.outputs is not None:
            linear = nn.Dense if self.widths else self.first
            x = linear(self.outputs, kernel_init=xavier_normal, dtype=self.dtype, name="out")(x)
        return x
