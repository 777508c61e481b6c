"""The embedding layer (Eq. 2–3): ids and frozen vectors → one vector per item, one per sample row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmctr_jax.features import Features
from mmctr_jax.features.lists import Parted
from mmctr_jax.models.linear import xavier_normal
from mmctr_jax.models.lists import distinct, ids_beyond, sums_beyond

if TYPE_CHECKING:
    from mmctr_jax.models.base import ModelSettings


def padded_normal(std: float):
    """Initialiser N(0, std²) with row 0, the padding row, zero."""

    def init(key, shape, dtype=jnp.float32):
        return (std * jax.random.normal(key, shape, dtype)).at[0].set(0.0)

    return init


def lookup(table: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of `table`. Padding (id 0) is the zero vector whatever the table holds, and passes no gradient on."""
    return jnp.where((ids != 0)[..., None], table[ids], 0).astype(dtype)


def mean_of_listed(vectors: jax.Array, ids: jax.Array) -> jax.Array:
    """(…, L, E) vectors of lists of ids (…, L), zero at padding → (…, E) their mean without it; zero, with a finite
    gradient, if there is nothing else."""
    count = (ids != 0).sum(axis=-1, keepdims=True)
    return vectors.sum(axis=-2) / jnp.maximum(count, 1).astype(vectors.dtype)


def two_rows(ids: jax.Array, size: int) -> jax.Array:
    """(…) ids → (…, 2) rows from 1 to size − 1, by two hashes (murmur3's finaliser); 0 for id 0."""
    x = ids.astype(jnp.uint32)[..., None] * jnp.array([0x9E3779B1, 0x85EBCA77], jnp.uint32)
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    rows = 1 + (x ^ (x >> 16)) % jnp.uint32(size - 1)
    return jnp.where(ids[..., None] != 0, rows.astype(jnp.int32), 0)


class ItemVectors(dict[str, jax.Array]):
    """An item table whose items are vectors (V, D) already, as `EmbeddingLayer.items` makes them.

    As a dictionary: the frozen vectors, which some models compare.
    """

    def __init__(self, vectors_VxD: jax.Array, frozen: dict[str, jax.Array]):
        super().__init__(frozen)
        self.vectors_VxD = vectors_VxD


class Listed(NamedTuple):
    """Items that a row lists."""

    vectors: jax.Array  # (B, L, D), zero at padding
    ids: jax.Array  # (B, L), 0 at padding


class Embedded(NamedTuple):
    """What every model starts from."""

    side: jax.Array  # (B, width of the side features), their vectors side by side
    target: jax.Array  # (B, D)
    history: jax.Array  # (B, N, D), zero at padding
    lists: dict[str, Listed]  # by name, of side features that list items, such as a second history


class EmbeddingLayer(nn.Module):
    """Owns every table; target and history share them.

    The kinds of features say what becomes of their values (`Feature.embed`), by `lookup`, `mean` and `project`.
    """

    features: Features
    settings: ModelSettings
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> Embedded:
        """Embeds a batch; `items` is the item table (`data.items.ItemTable`)."""
        lists = {f.name: batch["side"][f.name] for f in self.features.side if f.of_items}
        if isinstance(items, ItemVectors):
            vectors = items.vectors_VxD
            target, history = vectors[batch["item"]], vectors[batch["history"]]
            of_lists = [vectors[ids] for ids in lists.values()]
        else:
            for name in self.features.table_sizes:
                self.table(name)  # in this order, whatever the features use: a seed's tables are then always the same
            # Target and clicks in one lookup: so each table has one gradient, for devices to exchange once.
            every = [batch["item"][:, None], batch["history"], *lists.values()]
            found = self.items(jnp.concatenate(every, axis=1), items, train)
            ends = np.cumsum([ids.shape[1] for ids in every])
            target, history = found[:, 0], found[:, 1 : ends[1]]
            of_lists = [found[:, start:end] for start, end in zip(ends[1:], ends[2:], strict=False)]
        side = self._side(batch["side"], dict(zip(lists, of_lists, strict=True)), batch["item"].shape[0])
        listed = {
            name: Listed(jnp.where((ids != 0)[..., None], vectors, 0), ids)
            for (name, ids), vectors in zip(lists.items(), of_lists, strict=True)
        }
        return Embedded(side, *self._with_clicks(target, history, batch), listed)

    def _with_clicks(self, target, history, batch):
        """Target and history with the features of the clicks behind those of the items; the target has zeros there."""
        if not self.features.clicks:
            return target, history
        real = (batch["history"] != 0)[..., None]
        parts = [f.embed(self, batch["clicks"][f.name], batch["history"]) for f in self.features.clicks]
        clicks = jnp.where(real, jnp.concatenate(parts, axis=-1), 0)
        none = jnp.zeros((*target.shape[:-1], clicks.shape[-1]), target.dtype)
        return jnp.concatenate([target, none], axis=-1), jnp.concatenate([history, clicks], axis=-1)

    def items(self, ids: jax.Array, items: dict[str, jax.Array], train: bool) -> jax.Array:
        """(...,) item ids → (..., D), e_item of Eq. 3: id embedding, then the item features in the config's order."""
        parts = [self.lookup(self.features.item, self._left_in(self._with_row(ids, items), train))]
        for f in self.features.item_features:
            values = f.taken(items, ids)
            parts.append(f.embed(self, self._with_row(values, items) if f.lists_neighbours else values, ids))
        return jnp.concatenate(parts, axis=-1)

    def _side(self, values: dict[str, jax.Array], vectors: dict[str, jax.Array], rows: int) -> jax.Array:
        """(B, width): the side features of the rows, in the config's order. vectors: of lists of items."""
        parts = [
            f.embed(self, vectors[f.name], values[f.name]) if f.of_items else f.embed(self, values[f.name], None)
            for f in self.features.side
        ]
        return jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((rows, 0), self.dtype)

    def _with_row(self, ids: jax.Array, items: dict[str, jax.Array]) -> jax.Array:
        """(…) item ids → what `lookup` knows them by in the items' table; 0 for those that have no id embedding: that
        training did not know, or that got no row."""
        if self.features.item_rows:
            return jnp.asarray(items[self.features.item])[ids]
        return jnp.where(ids < self.features.num_items, ids, 0)

    def _left_in(self, ids: jax.Array, train: bool) -> jax.Array:
        """The ids, with 0 for those that `id_dropout` leaves out."""
        rate = self.settings.id_dropout
        if train and rate:
            ids = jnp.where(jax.random.bernoulli(self.make_rng("dropout"), rate, ids.shape), 0, ids)
        return ids

    # What kinds of features are embedded by

    def table(self, name: str) -> jax.Array:
        """(ids, E) the learned table of that name; sharding may have added rows that no id names."""
        if self.has_variable("params", name):
            return self.get_variable("params", name)
        shape = self.features.table_sizes[name], self.settings.embedding_dim
        return self.param(name, padded_normal(self.settings.embedding_init_std), shape)

    def lookup(self, name: str, ids: jax.Array) -> jax.Array:
        """(…) ids → (…, E) rows of a table, or of hashed ids the sum of two; zero for id 0."""
        size = self.features.item_hash if name == self.features.item else None
        rows = two_rows(ids, size) if size else ids
        found = lookup(self.table(name), self._places(name, rows), self.dtype)
        return found.sum(axis=-2) if size else found

    def mean(self, name: str, ids: jax.Array | Parted) -> jax.Array:
        """(…, L) lists of ids → (…, E): the mean over those that are not 0; zero if none is."""
        if isinstance(ids, Parted):
            first, counts = ids.first, (ids.first != 0).sum(axis=-1) + ids.beyond[..., 1]
            sums = self.lookup(name, first).sum(axis=-2) + self._beyond(name, ids)
            return sums / jnp.maximum(counts, 1)[..., None].astype(self.dtype)
        return mean_of_listed(self.lookup(name, ids), ids)

    def _beyond(self, name: str, ids: Parted) -> jax.Array:
        """(…, E) the sum over what the first ids of the lists leave."""
        (beyond_Nx2, of_list_N), rows = distinct(ids.beyond.reshape(-1, 2)), None
        if not self.is_initializing():
            self.sow("lookups", "ids", {name: ids_beyond(beyond_Nx2, ids.rest, self.features.table_sizes[name])})
        if self.has_variable("rows", name):
            rows = self.get_variable("rows", name)
        sums_NxE = sums_beyond(self.table(name), beyond_Nx2, ids.rest, rows).astype(self.dtype)
        return sums_NxE[of_list_N].reshape(*ids.beyond.shape[:-1], -1)

    def _places(self, name: str, ids: jax.Array) -> jax.Array:
        """Where the rows of these ids are in what there is of the table: the rows of a collection `rows`, or all.

        Whoever asks for the collection `lookups` gets the ids of each lookup. Row 0 is always the padding's.
        """
        if not self.is_initializing():
            self.sow("lookups", "ids", {name: ids})
        if self.has_variable("rows", name):
            return jnp.searchsorted(self.get_variable("rows", name), ids).astype(ids.dtype)
        return ids

    def project(self, name: str, vectors: jax.Array, ids: jax.Array) -> jax.Array:
        """(…, dim) frozen vectors of the items `ids` (…) through the feature's learned square map, if it has one."""
        # Padding again: through the projection a NaN times a gradient of 0 would be NaN.
        vectors = jnp.where((ids != 0)[..., None], vectors, 0).astype(self.dtype)
        if not self.settings.project_mm:
            return vectors
        dense = nn.Dense(vectors.shape[-1], use_bias=False, kernel_init=xavier_normal, dtype=self.dtype, name=name)
        return dense(vectors)
