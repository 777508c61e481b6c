"""Attention to the clicks of a history, in two forms with the same parameters and the same result.

Q is the number of queries: N for self-attention, 1 for the target's attention to the clicks.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.models.dropout import Dropout
from mmctr_jax.models.linear import LinearWeights, SharedDense

POSITIONS_A_COLUMN = 16
"""From so many positions in a batch for each of the T columns on, matrices are multiplied before positions are. On a
GPU the two forms are as fast there; on a CPU they are so earlier."""


class Attention(nn.Module):
    """Full attention to the attended positions; no query sees one that is not."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxQxT, keys_BxNxT, attended_BxN, train: bool, parts=None):
        """`keys_BxNxT` null: self-attention, among the N = Q positions of `x_BxQxT`; and then, `parts` not null: what
        `x_BxQxT` is made of, the first columns (H, Q, T − S), H being 1 where all rows have the same, and what the last
        ones hold at every position (B, S)."""
        B, Q, T = x_BxQxT.shape
        in_init, out_init = nn.initializers.xavier_uniform(), _uniform(T**-0.5)

        def weights_of(scores_BxHxQxN):
            scores_BxHxQxN = scores_BxHxQxN.astype(jnp.promote_types(self.dtype, jnp.float32))  # never in bfloat16
            scores_BxHxQxN = jnp.where(attended_BxN[:, None, None, :], scores_BxHxQxN, -jnp.inf)
            return Dropout(self.dropout)(jax.nn.softmax(scores_BxHxQxN, axis=-1).astype(self.dtype), train)

        many = not jax.export.is_symbolic_dim(B) and B * Q >= POSITIONS_A_COLUMN * T
        if keys_BxNxT is None and self.heads == 1 and many:
            in_proj = LinearWeights(3 * T, in_init, self.dtype, name="in_proj")(T)
            out_proj = LinearWeights(T, out_init, self.dtype, name="out_proj")(T)
            parts = parts or (x_BxQxT, jnp.zeros((1, 0)))
            return _matrices_first(*(part.astype(self.dtype) for part in parts), in_proj, out_proj, weights_of)

        def split(projected, count):
            projected = projected.reshape(B, -1, count, self.heads, T // self.heads)
            return [projected[:, :, i] for i in range(count)]

        def project(x, count, name):
            return split(nn.Dense(count * T, kernel_init=in_init, dtype=self.dtype, name=name)(x), count)

        if keys_BxNxT is not None:
            (q,), (k, v) = project(x_BxQxT, 1, "query_proj"), project(keys_BxNxT, 2, "key_value_proj")
        # Else one (T, 3T) matrix, as in the release: its Xavier limit is that of the whole, not of a third.
        elif parts is None:
            q, k, v = project(x_BxQxT, 3, "in_proj")
        else:
            q, k, v = split(SharedDense(3 * T, in_init, self.dtype, name="in_proj")(*parts), 3)
        weights_BxHxQxN = weights_of(jnp.einsum("bqhd,bkhd->bhqk", q, k) * (T // self.heads) ** -0.5)
        out = jnp.einsum("bhqk,bkhd->bqhd", weights_BxHxQxN, v).reshape(B, Q, T)
        return nn.Dense(T, kernel_init=out_init, dtype=self.dtype, name="out_proj")(out)


def _uniform(limit: float) -> nn.initializers.Initializer:
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


def _matrices_first(
    x_HxNxD: jax.Array,
    same_BxS: jax.Array,
    in_proj: tuple[jax.Array, jax.Array],
    out_proj: tuple[jax.Array, jax.Array],
    weights_of: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Self-attention with one head, of positions [x ‖ same], (B, N, T): by products of T³, two a position, not four.

    The score of i and j is (W_q p_i + b_q) · (W_k p_j + b_k). What does not depend on j, softmax takes out: the key's
    bias, and `same` within p_j. So it is (A p_i + a) · x_j with A = W_kᵀ W_q and a = W_kᵀ b_q, W_k's rows being those
    of x. Values and the output's projection are one map, too, of the mean of x that the weights of a position give.
    """
    (kernel_Tx3T, bias_3T), (out_TxT, out_T) = in_proj, out_proj
    query_TxT, key_TxT, value_TxT = jnp.split(kernel_Tx3T, 3, axis=1)
    query_T, _, value_T = jnp.split(bias_3T, 3)
    D, T = x_HxNxD.shape[-1], len(out_T)
    x_HxDxN = x_HxNxD.swapaxes(1, 2)
    key_TxD = key_TxT[:D].T * T**-0.5
    asked_TxD, given_TxT = query_TxT @ key_TxD, value_TxT @ out_TxT
    asked_Bx1xD = (same_BxS @ asked_TxD[D:] + query_T @ key_TxD)[:, None]
    given_Bx1xT = (same_BxS @ given_TxT[D:] + value_T @ out_TxT)[:, None]
    scores_BxNxN = (x_HxNxD @ asked_TxD[:D]) @ x_HxDxN + asked_Bx1xD @ x_HxDxN
    weights_BxNxN = weights_of(scores_BxNxN[:, None])[:, 0]
    total_BxNx1 = weights_BxNxN.sum(axis=-1, keepdims=True)  # not 1 after dropout
    return (weights_BxNxN @ x_HxNxD) @ given_TxT[:D] + total_BxNx1 * given_Bx1xT + out_T
