"""The matching model: target and history are compared outright, and learn from all targets of a batch at once.

A row's label says of one item whether it was clicked. The contrastive loss says of each click that it was this item and
none of the batch's other targets: hundreds of non-clicks for each click, at the price of one matrix product.
"""

from __future__ import annotations

from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from pydantic import Field

from mmctr_jax.models.base import Batch, Model, ModelSettings
from mmctr_jax.models.linear import xavier_normal
from mmctr_jax.models.mlp import MLP
from mmctr_jax.models.transformer import max_over_positions
from mmctr_jax.settings import NonNegative, Positive, Rate, Width

_EPSILON = 1e-8  # what a product of squared norms is never below


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """(…, E) → (…): cosines; 0 with a zero vector, where the gradient is finite too."""
    squares = jnp.square(a).sum(axis=-1) * jnp.square(b).sum(axis=-1)
    return (a * b).sum(axis=-1) * jax.lax.rsqrt(squares + _EPSILON)


def contrastive_loss(affinity_BxB: jax.Array, batch: Batch) -> jax.Array:
    """() mean over the clicks of a batch of -log softmax: of its targets, the clicked one for this row's history.

    Left out of a row's candidates: its own target where other rows have it too, what it clicked before, and rows of
    weight 0. Targets are drawn by their frequency, so the affinity learns log p(item | history) / p(item), up to a
    constant of each row (Oord et al. 2018, arXiv 1807.03748). affinity_BxB: float32; rows: histories, columns: targets.
    """
    item_B, real_B = batch["item"], batch["weight"] > 0
    seen_BxB = (batch["history"][:, :, None] == item_B).any(axis=1)
    own_BxB = jnp.eye(len(item_B), dtype=bool)
    candidate_BxB = own_BxB | (real_B & ~seen_BxB & (item_B[:, None] != item_B))
    affinity_BxB = jnp.where(real_B[:, None], affinity_BxB, 0)  # before the loss: a NaN would still reach the gradient
    affinity_BxB = jnp.where(candidate_BxB, affinity_BxB, -jnp.inf)
    losses_B = optax.softmax_cross_entropy_with_integer_labels(affinity_BxB, jnp.arange(len(item_B)))
    click_B = jnp.where(real_B & (batch["label"] > 0), batch["weight"], 0)
    return jnp.where(click_B > 0, click_B * losses_B, 0).sum() / jnp.maximum(click_B.sum(), 1)


class Matching(Model):
    """[side ‖ target ‖ mean, last and attended click ‖ how target and clicks compare ‖ affinity] → an MLP."""

    @nn.compact
    def __call__(self, batch, items, train):
        settings, clicked = self.settings, batch
        if train and settings.click_dropout:
            out_BxN = jax.random.bernoulli(self.make_rng("dropout"), settings.click_dropout, batch["history"].shape)
            clicked = batch | {"history": jnp.where(out_BxN, 0, batch["history"])}
        e = self.embedded(clicked, items, train)
        click_BxN = clicked["history"] != 0
        clicks_Bx1 = click_BxN.sum(axis=1, keepdims=True).astype(self.dtype)
        mean_BxD = e.history.sum(axis=1) / jnp.maximum(clicks_Bx1, 1)
        last_B = jnp.where(click_BxN, jnp.arange(click_BxN.shape[1]), -1).argmax(axis=1)
        last_BxD = jnp.take_along_axis(e.history, last_B[:, None, None], axis=1)[:, 0]
        attended_BxD = self._attended(e.target, e.history, click_BxN)

        largest_BxD = max_over_positions(e.history, click_BxN[..., None])
        user_BxA = self._tower("user", jnp.concatenate([mean_BxD, last_BxD, largest_BxD], axis=-1), train)
        item_BxA = self._tower("item", e.target, train)
        affinity_Bx1 = (user_BxA * item_BxA).sum(axis=-1, keepdims=True) / settings.temperature
        if train and settings.contrastive:
            loss = contrastive_loss(user_BxA @ item_BxA.T / settings.temperature, batch)
            self.sow("losses", "contrastive", settings.contrastive * loss)

        views = [mean_BxD, last_BxD, attended_BxD]
        compared = [c for part in self._parts() for c in self._compared(e, views, click_BxN, part)]
        x = [e.side, e.target, *views, *compared, jnp.log1p(clicks_Bx1), affinity_Bx1.astype(self.dtype)]
        deep = MLP(settings.deep, self.dtype, settings.dropout, name="deep")
        return self.logits((), deep(jnp.concatenate(x, axis=-1), train), train)

    def _attended(self, target_BxD, history_BxNxD, click_BxN):
        """(B, D): the clicks' mean by a softmax over query · key and a learned weight of recency; 0 without clicks."""
        width, N = self.settings.attention, click_BxN.shape[1]

        def project(x, name):
            return nn.Dense(width, kernel_init=xavier_normal, dtype=self.dtype, name=name)(x)

        scores_BxN = jnp.einsum("be,bne->bn", project(target_BxD, "query"), project(history_BxNxD, "key"))
        recency = self.param("recency", nn.initializers.zeros, (self.settings.max_history,), jnp.float32)
        recency = jnp.pad(recency, (max(N - len(recency), 0), 0))  # where there is more padding than that
        scores_BxN = scores_BxN.astype(jnp.promote_types(self.dtype, jnp.float32)) * width**-0.5 + recency[-N:]
        scores_BxN = jnp.where(click_BxN, scores_BxN, jnp.finfo(jnp.float32).min)
        weights_BxN = jnp.where(click_BxN, jax.nn.softmax(scores_BxN, axis=-1), 0).astype(self.dtype)
        return jnp.einsum("bn,bnd->bd", weights_BxN, history_BxNxD)

    def _tower(self, name, x, train):
        """(B, A) unit vectors: what a history is like, or a target."""
        layers = MLP(self.settings.tower[:-1], self.dtype, outputs=self.settings.tower[-1], name=name)
        x = layers(x, train).astype(jnp.promote_types(self.dtype, jnp.float32))
        return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + _EPSILON)

    def _parts(self):
        """Where in an item's vector its id embedding and each of its features are."""
        width = self.settings.embedding_dim
        ends = [width]
        for f in self.features.item_features:
            ends.append(ends[-1] + f.width(width))
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    @staticmethod
    def _compared(e, views, click_BxN, part):
        """Columns (B, 1) or (B, 2): dot product and cosine of the target and each view; the largest of its clicks."""
        target, history = e.target[:, part], e.history[:, :, part]
        for view in views:
            yield jnp.stack([(target * view[:, part]).sum(axis=-1), cosine(target, view[:, part])], axis=-1)
        each = jnp.stack([(target[:, None] * history).sum(axis=-1), cosine(target[:, None], history)], axis=-1)
        yield max_over_positions(each, click_BxN[..., None])


class MatchingSettings(ModelSettings):
    """Explicit comparison of target and clicks, a contrastive loss within the batch, and an MLP."""

    name: Literal["matching"] = "matching"
    max_history: Width = 16
    """N: the most recent N clicks count, older ones are dropped."""
    embedding_init_std: Positive = 0.01
    """Standard deviation of embedding tables at the start."""
    id_dropout: Rate = 0.3
    """Share of target and history ids whose id embedding is left out (that of padding) in a training step."""
    click_dropout: Rate = 0.3
    """Share of the clicks that are left out in a training step."""
    contrastive: NonNegative = 2.0
    """What the contrastive loss counts beside the logloss. 0: it is not computed. It compares the rows of a batch, so
    it teaches more in larger ones."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.1
    """What cosines are divided by in the contrastive loss."""
    tower: Annotated[tuple[Width, ...], Field(min_length=1)] = (128, 64)
    """Widths of the MLPs that history and target go through to be compared in the contrastive loss."""
    attention: Width = 64
    """Width of query and key where the target attends to the clicks."""
    deep: tuple[Width, ...] = (256, 128)
    """Widths of the deep layers."""
    dropout: Rate = 0.2
    """After each deep layer."""

    module = Matching
