"""Sequential feature learning (Eq. 4–6): Transformer over the clicks, each joined with the target.

Q is the number of queries: N for self-attention, 1 for the target's attention to the clicks. P = B·Q.
"""

from __future__ import annotations

from typing import Annotated, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from pydantic import Field, model_validator

from mmctr_jax.features import Features
from mmctr_jax.models.attention import Attention
from mmctr_jax.models.dropout import Dropout
from mmctr_jax.models.linear import xavier_normal
from mmctr_jax.models.similarity import check_vectors
from mmctr_jax.settings import Count, Depth, Rate, Settings, Width


class TransformerSettings(Settings):
    """The Transformer over the clicks (Eq. 4–6)."""

    layers: Depth = 2
    """Encoder layers."""
    heads: Width = 1
    """Attention heads; must divide the Transformer's width (twice the item width)."""
    feedforward: Width = 256
    """Width of the feed-forward layers."""
    dropout: Rate = 0.2
    """On attention weights, attention output, inside the feed-forward and on its output."""
    first_k: Count = 16
    """K: how many of the last outputs are kept. 0: the pooled one only."""
    max_pool: bool = True
    """Append the max-pooled, projected output."""
    similarity: bool = False
    """The cosine of each click's and the target's frozen vectors joins the input."""
    target_attention: Annotated[int, Field(ge=0, le=4)] = 0
    """Layers with the target as query and the clicks as keys, beside self-attention."""

    @model_validator(mode="after")
    def _history_reaches_the_model(self) -> TransformerSettings:
        if self.first_k == 0 and not self.max_pool and not self.target_attention:
            raise ValueError(
                "model.transformer.first_k 0 without max_pool drops the history; raise first_k, or set max_pool to true"
            )
        if self.first_k == 0 and not self.max_pool and (self.layers or self.similarity):
            raise ValueError(
                "model.transformer.first_k 0 without max_pool leaves the encoder's outputs unread; "
                "set layers to 0 and similarity to false, or keep some outputs"
            )
        return self

    def check(self, features: Features, embedding_dim: int) -> None:
        """Raises: ValueError if the heads do not divide the widths, or there are no vectors to compare."""
        width = features.click_width(embedding_dim)
        if 2 * width % self.heads:
            raise ValueError(
                f"model.transformer.heads {self.heads} does not divide the Transformer's width {2 * width}"
            )
        if self.target_attention and width % self.heads:
            raise ValueError(
                f"model.transformer.heads {self.heads} does not divide the item width {width}, target_attention's own"
            )
        if self.similarity:
            check_vectors("model.transformer.similarity", features)

    def narrowed(self, length: int) -> Self:
        """Enough where no history is longer than `length`: the last K outputs have zeros before the last `length`."""
        return self.model_copy(update={"first_k": length}) if self.first_k > length else self


class EncoderLayer(nn.Module):
    """Post-norm: residual, then LayerNorm. Arguments as in `Attention`."""

    settings: TransformerSettings
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x_BxQxT, keys_BxNxT, attended_BxN, train: bool, parts=None):
        settings = self.settings

        def dropout(x):
            return Dropout(settings.dropout)(x, train)

        def norm(x, name):
            norm_dtype = jnp.promote_types(self.dtype, jnp.float32)
            return nn.LayerNorm(epsilon=1e-5, dtype=norm_dtype, name=name)(x).astype(self.dtype)

        attention = Attention(settings.heads, settings.dropout, self.dtype, name="attention")
        attended_to_BxQxT = attention(x_BxQxT, keys_BxNxT, attended_BxN, train, parts)
        *_, T = shape = x_BxQxT.shape
        x_PxT, attended_to_PxT = (x.reshape(-1, T) for x in (x_BxQxT, attended_to_BxQxT))  # fewer kernels on a GPU
        x_PxT = norm(x_PxT + dropout(attended_to_PxT), "norm1")
        inner = nn.Dense(settings.feedforward, kernel_init=xavier_normal, dtype=self.dtype, name="linear1")(x_PxT)
        inner = dropout(nn.relu(inner))
        outer_PxT = nn.Dense(T, kernel_init=xavier_normal, dtype=self.dtype, name="linear2")(inner)
        return norm(x_PxT + dropout(outer_PxT), "norm2").reshape(shape)


@jax.custom_jvp
def max_over_positions(x_BxNxT, attended_BxNx1):
    """(B, T): the maximum over the attended positions; its gradient goes to the first that has it.

    Not that of `max`, which compares x with the maximum again: where the compiler computes x twice with another
    rounding, equal positions (a repeated click, padding) get too little or NaN. An index is decided once.
    """
    most_BxT = jnp.where(attended_BxNx1, x_BxNxT, -jnp.inf).max(axis=1)
    return jnp.where(attended_BxNx1.any(axis=1), most_BxT, x_BxNxT[:, 0])


@max_over_positions.defjvp
def _max_and_tangent(primals, tangents):
    x_BxNxT, attended_BxNx1 = primals
    first_Bx1xT = jnp.where(attended_BxNx1, x_BxNxT, -jnp.inf).argmax(axis=1, keepdims=True)
    chosen_BxNxT = jnp.arange(x_BxNxT.shape[1])[:, None] == first_Bx1xT
    return tuple(jnp.where(chosen_BxNxT, of_BxNxT, 0).sum(axis=1) for of_BxNxT in (x_BxNxT, tangents[0]))


class HistoryEncoder(nn.Module):
    """History and target → S_o (Eq. 6): the last K outputs, flattened, and the projected max-pool.

    Options: the cosines of click and target join the input; the target attends to the clicks beside it all.
    """

    settings: TransformerSettings
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, history_BxNxD, target_BxD, attended_BxN, kept_BxN, cosines_BxNxC, train: bool):
        """Returns (B, K·T), with T more columns for the max-pool and D more for the target's attention.

        `kept_BxN`: positions whose outputs are kept, the others being zero. `cosines_BxNxC`: of clicks and target;
        null without `similarity`. It, `history_BxNxD` and `attended_BxN` may have one position that stands for all of
        them (`masking.stand_in`), and history and masks one row that is that of all samples.
        """
        B, N = target_BxD.shape[0], kept_BxN.shape[1]
        attended_BxNx1 = attended_BxN[..., None]
        # Attention weights of 0 do not stop a NaN (0 · NaN): what is not attended to is selected away, here and below.
        parts = jnp.where(attended_BxNx1, history_BxNxD, 0), target_BxD
        history_BxNxD = jnp.broadcast_to(parts[0], (B, *parts[0].shape[1:]))
        target_BxNxD = jnp.broadcast_to(target_BxD[:, None], history_BxNxD.shape)
        x_BxNxT = jnp.concatenate([history_BxNxD, target_BxNxD], axis=-1)  # Eq. 4
        if self.settings.similarity:
            # Added, not appended: widths stay multiples of what they were, for heads and for matrix units.
            T = x_BxNxT.shape[-1]
            column = nn.Dense(T, use_bias=False, kernel_init=xavier_normal, dtype=self.dtype, name="similarity")
            x_BxNxT += column(jnp.where(attended_BxNx1, cosines_BxNxC, 0).astype(self.dtype))
            parts = None
        for i in range(self.settings.layers):
            layer = EncoderLayer(self.settings, self.dtype, name=f"layer_{i}")
            x_BxNxT = layer(x_BxNxT, None, attended_BxN, train, parts if i == 0 else None)
        kept_BxNxT = jnp.where(kept_BxN[..., None], x_BxNxT, 0)
        K = self.settings.first_k
        last_BxKxT = jnp.pad(kept_BxNxT, ((0, 0), (max(K - N, 0), 0), (0, 0)))[:, max(N - K, 0) :]
        outputs = [last_BxKxT.reshape(B, -1)]
        if self.settings.max_pool:
            pooled_BxT = max_over_positions(x_BxNxT, attended_BxNx1)
            T = pooled_BxT.shape[-1]
            outputs.append(nn.Dense(T, kernel_init=xavier_normal, dtype=self.dtype, name="pool_proj")(pooled_BxT))
        if self.settings.target_attention:
            query_Bx1xD = target_BxD[:, None]
            for i in range(self.settings.target_attention):
                layer = EncoderLayer(self.settings, self.dtype, name=f"target_layer_{i}")
                query_Bx1xD = layer(query_Bx1xD, history_BxNxD, attended_BxN, train)
            outputs.append(query_Bx1xD[:, 0])
        return jnp.concatenate(outputs, axis=-1)
