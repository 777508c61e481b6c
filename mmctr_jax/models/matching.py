"""The matching model: target and history are compared outright, and learn from all targets of a batch at once.

A row's label says of one item whether it was clicked. The contrastive loss says of each click that it was this item and
none of the batch's other targets: hundreds of non-clicks for each click, at the price of one matrix product.
"""

from __future__ import annotations

from typing import Annotated, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from pydantic import Field

from mmctr_jax.models.base import Batch, Model, ModelSettings
from mmctr_jax.models.embedding import mean_of_listed
from mmctr_jax.models.linear import xavier_normal
from mmctr_jax.models.mlp import MLP
from mmctr_jax.models.transformer import max_over_positions
from mmctr_jax.settings import NonNegative, Positive, Rate, Width

_EPSILON = 1e-8  # what a product of squared norms is never below


def with_cosines(dots: jax.Array, a_squared: jax.Array, b_squared: jax.Array) -> jax.Array:
    """(…,) dot products → (…, 2) these and the cosines; 0 with a zero vector, where the gradient is finite too.

    a_squared, b_squared: the vectors' squared lengths, of shapes that broadcast.
    """
    return jnp.stack([dots, dots * jax.lax.rsqrt(a_squared * b_squared + _EPSILON)], axis=-1)


def dot_with_clicks(x_BxE: jax.Array, clicks_HxNxE: jax.Array) -> jax.Array:
    """(B, N) dot products of each row with the clicks of its history."""
    if clicks_HxNxE.shape[0] == 1:  # one product of matrices; that of vectors is as fast only where none is shared
        return x_BxE @ clicks_HxNxE[0].T
    return (x_BxE[:, None] * clicks_HxNxE).sum(axis=-1)


def mean_by(weights_BxN: jax.Array, clicks_HxNxE: jax.Array) -> jax.Array:
    """(B, E) sums of the clicks of each row's history, by its weights."""
    if clicks_HxNxE.shape[0] == 1:
        return weights_BxN @ clicks_HxNxE[0]
    return jnp.einsum("bn,bne->be", weights_BxN, clicks_HxNxE)


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
    click_B = batch["label"] * batch["weight"]
    return jnp.where(click_B > 0, click_B * losses_B, 0).sum() / jnp.maximum(click_B.sum(), 1)


class Matching(Model):
    """[side ‖ target ‖ mean, last and attended click ‖ how target and clicks compare ‖ crosses ‖ affinity] → an MLP.

    The crosses are dot products and cosines of the learned vectors of each of the row's features and each of the
    target's: what a price says to a budget, or a category to a device. Dot products alone, as in a factorisation
    machine, say little while vectors are small; cosines turn with the first steps.

    With a second history, such as of items that were passed over, how it and the target compare, too.

    H: 1 where all rows of a batch have the same history, else B.
    """

    @nn.compact
    def __call__(self, batch, items, train):
        settings, clicked = self.settings, batch
        if train and settings.click_dropout:
            out_BxN = jax.random.bernoulli(self.make_rng("dropout"), settings.click_dropout, batch["history"].shape)
            clicked = batch | {"history": jnp.where(out_BxN, 0, batch["history"])}
        e = self.embedded(clicked, items, train)
        click_HxN = clicked["history"] != 0
        clicks_Hx1 = click_HxN.sum(axis=1, keepdims=True).astype(self.dtype)
        mean_HxD = e.history.sum(axis=1) / jnp.maximum(clicks_Hx1, 1)
        at_N = jnp.arange(click_HxN.shape[1])
        last_HxN = at_N == jnp.where(click_HxN, at_N, -1).max(axis=1, keepdims=True)
        last_HxD = jnp.where(last_HxN[..., None], e.history, 0).sum(axis=1)
        attended_BxD = self._attended(e.target, e.history, click_HxN)

        largest_HxD = max_over_positions(e.history, click_HxN[..., None])
        user_HxA = self._tower("user", jnp.concatenate([mean_HxD, last_HxD, largest_HxD], axis=-1), train)
        item_BxA = self._tower("item", e.target, train)
        self.sow_vector("user_vector", user_HxA)
        self.sow_vector("item_vector", item_BxA)
        affinity_Bx1 = (user_HxA * item_BxA).sum(axis=-1, keepdims=True) / settings.temperature
        if train and settings.contrastive:
            loss = contrastive_loss(user_HxA @ item_BxA.T / settings.temperature, batch)
            self.sow("losses", "contrastive", settings.contrastive * loss)

        views = [mean_HxD, last_HxD, attended_BxD]
        compared = [self._compared(e.target, views, e.history, click_HxN)]
        for vectors_BxLxD, ids_BxL in e.lists.values():
            real_BxL, mean_BxD = ids_BxL != 0, mean_of_listed(vectors_BxLxD, ids_BxL)
            compared.append(self._compared(e.target, [mean_BxD], vectors_BxLxD, real_BxL))
            compared.append(jnp.log1p(real_BxL.sum(axis=1, keepdims=True).astype(self.dtype)))
        x = [e.side, e.target, *views, *compared, *self._crosses(e), jnp.log1p(clicks_Hx1)]
        x.append(affinity_Bx1.astype(self.dtype))
        x_BxF = jnp.concatenate([jnp.broadcast_to(part, (e.target.shape[0], part.shape[1])) for part in x], axis=-1)
        return self.logits((), MLP(settings.deep, self.dtype, settings.dropout, name="deep")(x_BxF, train), train)

    def _attended(self, target_BxD, history_HxNxD, click_HxN):
        """(B, D): the clicks' mean by a softmax over query · key and a learned weight of recency; 0 without clicks."""
        width, N = self.settings.attention, click_HxN.shape[1]

        def project(x, name):
            return nn.Dense(width, kernel_init=xavier_normal, dtype=self.dtype, name=name)(x)

        scores_BxN = dot_with_clicks(project(target_BxD, "query"), project(history_HxNxD, "key"))
        recency = self.param("recency", nn.initializers.zeros, (self.settings.max_history,), jnp.float32)
        recency = jnp.pad(recency, (max(N - len(recency), 0), 0))  # where there is more padding than that
        scores_BxN = scores_BxN.astype(jnp.promote_types(self.dtype, jnp.float32)) * width**-0.5 + recency[-N:]
        scores_BxN = jnp.where(click_HxN, scores_BxN, jnp.finfo(jnp.float32).min)
        weights_BxN = jnp.where(click_HxN, jax.nn.softmax(scores_BxN, axis=-1), 0).astype(self.dtype)
        return mean_by(weights_BxN, history_HxNxD)

    def _tower(self, name, x, train):
        """(…, A) unit vectors: what a history is like, or a target."""
        layers = MLP(self.settings.tower[:-1], self.dtype, outputs=self.settings.tower[-1], name=name)
        x = layers(x, train).astype(jnp.promote_types(self.dtype, jnp.float32))
        return x * jax.lax.rsqrt(jnp.square(x).sum(axis=-1, keepdims=True) + _EPSILON)

    def _crosses(self, e):
        """(B, 2 · pairs) dot products and cosines, if the row has features with learned vectors."""
        width = self.settings.embedding_dim
        of_row = self._learned(self.features.side, e.side, 0)
        of_target = [e.target[:, :width], *self._learned(self.features.item_features, e.target, width)]
        if of_row:
            row_BxRxE, target_BxExT = jnp.stack(of_row, axis=1), jnp.stack(of_target, axis=2)
            row_BxRx1 = jnp.square(row_BxRxE).sum(axis=2, keepdims=True)
            target_Bx1xT = jnp.square(target_BxExT).sum(axis=1, keepdims=True)
            yield with_cosines(row_BxRxE @ target_BxExT, row_BxRx1, target_Bx1xT).reshape(e.target.shape[0], -1)

    def _learned(self, features, x_BxW, at):
        """The vectors (B, E) that tables have of features, which stand side by side in `x_BxW` from column `at` on."""
        width, found = self.settings.embedding_dim, []
        for f in features:
            at += self.features.item_width(width) if f.of_items else f.width(width)
            if f.table_size is not None:  # its last columns
                found.append(x_BxW[:, at - width : at])
        return found

    def _parts(self):
        """Where in an item's vector its id embedding and each of its features are."""
        width = self.settings.embedding_dim
        ends = [width]
        for f in self.features.item_features:
            ends.append(ends[-1] + f.width(width))
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]

    def _compared(self, target, views, listed, real):
        """(B, 2 · (views + 1) · P) for each of the P parts: dot product and cosine of the target and each view, and the
        largest of each that is listed.

        Sums over a part are products with a matrix of 0 and 1: cut out one by one, the parts of long lists would each
        be copied, and their gradients put together again.
        """
        parts, batch = self._parts(), target.shape[0]
        target = target[:, : listed.shape[-1]]  # clicks may have features behind those of items, other lists have none
        in_part_DxP = np.zeros((target.shape[1], len(parts)), np.float32)
        for p, part in enumerate(parts):
            in_part_DxP[part, p] = 1

        def sums(x):
            return jnp.matmul(x, in_part_DxP.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)

        squared_BxP = sums(jnp.square(target))
        found = [with_cosines(sums(target * view), squared_BxP, sums(jnp.square(view))) for view in views]
        if listed.shape[0] == 1:  # one product of matrices for each part
            dots_BxNxP = jnp.stack([dot_with_clicks(target[:, part], listed[:, :, part]) for part in parts], axis=-1)
        else:
            dots_BxNxP = sums(target[:, None] * listed)
        each_BxNxPx2 = with_cosines(dots_BxNxP, squared_BxP[:, None], sums(jnp.square(listed)))
        most_BxC = max_over_positions(each_BxNxPx2.reshape(batch, -1, 2 * len(parts)), real[..., None])
        found.append(most_BxC.reshape(batch, len(parts), 2))
        return jnp.stack(found, axis=2).reshape(batch, -1)


class MatchingSettings(ModelSettings):
    """Explicit comparison of target and clicks, a contrastive loss within the batch, and an MLP."""

    name: Literal["matching"] = "matching"
    max_history: Width = 16
    """N: the most recent N clicks count, older ones are dropped."""
    embedding_init_std: Positive = 0.01
    """Standard deviation of embedding tables at the start."""
    id_dropout: Rate = 0.1
    """Share of target and history ids whose id embedding is left out (that of padding) in a training step: teaches the
    model to score new items by what else is known of them."""
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
    shares_history = True
