"""Sequential feature learning (Eq. 4–6): Transformer over the clicks, each joined with the target."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config import TransformerConfig

_xavier_normal = nn.initializers.xavier_normal()


def _uniform(limit: float):
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


class SelfAttention(nn.Module):
    """Full attention among the attended positions; no position sees one that is not."""

    heads: int
    dropout: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxNxT, attended_BxN, train: bool):
        B, N, T = x_BxNxT.shape
        # One (T, 3T) matrix, as in the release: its Xavier limit is that of the whole, not of a third.
        in_proj = nn.Dense(3 * T, kernel_init=nn.initializers.xavier_uniform(), dtype=self.dtype, name="in_proj")
        qkv = in_proj(x_BxNxT).reshape(B, N, 3, self.heads, T // self.heads)
        q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        scores_BxHxNxN = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (T // self.heads) ** -0.5
        scores_BxHxNxN = scores_BxHxNxN.astype(jnp.promote_types(self.dtype, jnp.float32))  # softmax never in bfloat16
        scores_BxHxNxN = jnp.where(attended_BxN[:, None, None, :], scores_BxHxNxN, -jnp.inf)
        weights_BxHxNxN = jax.nn.softmax(scores_BxHxNxN, axis=-1).astype(self.dtype)
        weights_BxHxNxN = nn.Dropout(self.dropout, deterministic=not train)(weights_BxHxNxN)
        out = jnp.einsum("bhqk,bkhd->bqhd", weights_BxHxNxN, v).reshape(B, N, T)
        return nn.Dense(T, kernel_init=_uniform(T**-0.5), dtype=self.dtype, name="out_proj")(out)


class EncoderLayer(nn.Module):
    """Post-norm: residual, then LayerNorm."""

    config: TransformerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxNxT, attended_BxN, train: bool):
        config = self.config

        def dropout(x):
            return nn.Dropout(config.dropout, deterministic=not train)(x)

        def norm(x, name):
            norm_dtype = jnp.promote_types(self.dtype, jnp.float32)
            return nn.LayerNorm(epsilon=1e-5, dtype=norm_dtype, name=name)(x).astype(self.dtype)

        attention = SelfAttention(config.heads, config.dropout, self.dtype, name="attention")
        x_BxNxT = norm(x_BxNxT + dropout(attention(x_BxNxT, attended_BxN, train)), "norm1")
        inner = nn.Dense(config.feedforward, kernel_init=_xavier_normal, dtype=self.dtype, name="linear1")(x_BxNxT)
        inner = dropout(nn.relu(inner))
        outer = nn.Dense(x_BxNxT.shape[-1], kernel_init=_xavier_normal, dtype=self.dtype, name="linear2")(inner)
        return norm(x_BxNxT + dropout(outer), "norm2")


class HistoryEncoder(nn.Module):
    """History and target → S_o (Eq. 6): the last K outputs, flattened, and the projected max-pool."""

    config: TransformerConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, history_BxNxD, target_BxD, attended_BxN, train: bool):
        """Returns (B, K·T), or (B, (K + 1)·T) with the max-pool."""
        B, N, _ = history_BxNxD.shape
        attended_BxNx1 = attended_BxN[..., None]
        target_BxNxD = jnp.broadcast_to(target_BxD[:, None], history_BxNxD.shape)
        x_BxNxT = jnp.concatenate([history_BxNxD, target_BxNxD], axis=-1)  # Eq. 4
        # Attention weights of 0 do not stop a NaN (0 · NaN): what is not attended to is selected away, here and below.
        x_BxNxT = jnp.where(attended_BxNx1, x_BxNxT, 0)
        for i in range(self.config.layers):
            x_BxNxT = EncoderLayer(self.config, self.dtype, name=f"layer_{i}")(x_BxNxT, attended_BxN, train)
        kept_BxNxT = jnp.where(attended_BxNx1, x_BxNxT, 0)
        K = self.config.first_k
        last_BxKxT = jnp.pad(kept_BxNxT, ((0, 0), (max(K - N, 0), 0), (0, 0)))[:, max(N - K, 0) :]
        parts = [last_BxKxT.reshape(B, -1)]
        if self.config.max_pool:
            pooled_BxT = jnp.where(attended_BxNx1, x_BxNxT, -jnp.inf).max(axis=1)
            T = pooled_BxT.shape[-1]
            parts.append(nn.Dense(T, kernel_init=_xavier_normal, dtype=self.dtype, name="pool_proj")(pooled_BxT))
        return jnp.concatenate(parts, axis=-1)
