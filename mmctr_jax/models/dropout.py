"""Dropout from 16 random bits an element."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Sets elements to zero with probability `rate`, to the nearest 2⁻¹⁶, and scales the others to the same mean.

    Half the random bits of Flax's, which draws a float32 per element. The generator stays threefry: each device of a
    mesh draws its own rows' bits, the same whatever the number of devices.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        dropped = min(round(self.rate * 2**16), 2**16 - 1)  # of 2¹⁶ equally likely draws
        if not train or not dropped:
            return x
        *rows, n = x.shape
        words = jax.random.bits(self.make_rng("dropout"), (*rows, -(-n // 2)), jnp.uint32)
        draws = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(*rows, -1)[..., :n]
        return jnp.where(draws >= dropped, x * (2**16 / (2**16 - dropped)), 0)
