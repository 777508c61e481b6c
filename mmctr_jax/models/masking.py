"""Which history positions the Transformer attends to and keeps. Decided here and nowhere else."""

import jax
import jax.numpy as jnp


def attended_positions(history_BxN: jax.Array, history_mask: str) -> jax.Array:
    """(B, N) bool: positions that are attended to, whose outputs are kept, and that the max-pool sees.

    `valid`: the real clicks (Eq. 5). `released`: the padding positions: the released code's mask is inverted.
    Where that leaves none (an empty history; with `released`, a full one), the last position stands alone, so that
    every sample has something to attend to.
    """
    real = history_BxN != 0
    attended = real if history_mask == "valid" else ~real
    none = ~attended.any(axis=1, keepdims=True)
    last = jnp.arange(history_BxN.shape[1]) == history_BxN.shape[1] - 1
    return attended | (none & last)


def stand_in(history_BxN: jax.Array) -> jax.Array:
    """(B, 1): the one item that stands for a history under the released mask, where nothing is random (no dropout).

    Attended positions hold padding, all the same, or where there is none, the last click alone; attention to equals is
    attention to one of them.
    """
    return jnp.where((history_BxN != 0).all(axis=1), history_BxN[:, -1], 0)[:, None]
