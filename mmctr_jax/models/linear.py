"""Linear layers that compute once a sample what is the same at every position."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

xavier_normal = nn.initializers.xavier_normal()


def _weights(layer: SharedDense | PairDense | LinearWeights, width: int) -> tuple[jax.Array, jax.Array]:
    """(width, features) and (features,) in the layer's dtype: the parameters of a plain Linear."""
    kernel = layer.param("kernel", layer.kernel_init, (width, layer.features), jnp.float32)
    bias = layer.param("bias", nn.initializers.zeros, (layer.features,), jnp.float32)
    return kernel.astype(layer.dtype), bias.astype(layer.dtype)


class LinearWeights(nn.Module):
    """What a plain Linear multiplies by and adds, for a caller that does so itself."""

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, width: int) -> tuple[jax.Array, jax.Array]:
        """(width, features) and (features,)."""
        return _weights(self, width)


class SharedDense(nn.Module):
    """Linear of [x ‖ shared], where `shared` is the same at every position. Parameters are those of a plain Linear."""

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxNxI: jax.Array, shared_BxS: jax.Array) -> jax.Array:
        """Returns (B, N, features); `x_BxNxI` may have one row that is that of all samples."""
        width = x_BxNxI.shape[-1]
        kernel, bias = _weights(self, width + shared_BxS.shape[-1])
        once_Bx1xO = (shared_BxS.astype(self.dtype) @ kernel[width:] + bias)[:, None]
        return x_BxNxI.astype(self.dtype) @ kernel[:width] + once_Bx1xO


class PairDense(nn.Module):
    """Linear of [x ‖ y ‖ x − y ‖ x ⊙ y], x being the same at every position. Parameters are those of a plain Linear."""

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pair: tuple[jax.Array, jax.Array]) -> jax.Array:
        """(B, D), (B, N, D) → (B, N, features), by half the products and without the wide input."""
        x_BxD, y_BxNxD = (array.astype(self.dtype) for array in pair)
        D = x_BxD.shape[-1]
        kernel, bias = _weights(self, 4 * D)
        of_x, of_y, of_difference, of_product = jnp.split(kernel, 4)
        once_Bx1xO = (x_BxD @ (of_x + of_difference) + bias)[:, None]
        return once_Bx1xO + y_BxNxD @ (of_y - of_difference) + (x_BxD[:, None] * y_BxNxD) @ of_product
