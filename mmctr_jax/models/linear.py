"""Linear layers that compute once a sample what is the same at every position."""

import flax.linen as nn
import jax
import jax.numpy as jnp

xavier_normal = nn.initializers.xavier_normal()


class SharedDense(nn.Module):
    """Linear of [x ‖ shared], where `shared` is the same at every position. Parameters are those of a plain Linear."""

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxNxI: jax.Array, shared_BxS: jax.Array) -> jax.Array:
        """Returns (B, N, features); `x_BxNxI` may have one row that is that of all samples."""
        width = x_BxNxI.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (width + shared_BxS.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel, bias = kernel.astype(self.dtype), bias.astype(self.dtype)
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
        kernel = self.param("kernel", self.kernel_init, (4 * D, self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        of_x, of_y, of_difference, of_product = jnp.split(kernel.astype(self.dtype), 4)
        once_Bx1xO = (x_BxD @ (of_x + of_difference) + bias.astype(self.dtype))[:, None]
        return once_Bx1xO + y_BxNxD @ (of_y - of_difference) + (x_BxD[:, None] * y_BxNxD) @ of_product
