"""The embedding layer (Eq. 2–3): ids and frozen vectors → one vector per item, one per side feature."""

from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.linear import xavier_normal


def padded_normal(std: float):
    """Initialiser N(0, std²) with row 0, the padding row, zero, and zeros beyond `ids` rows."""

    def init(key, shape, dtype=jnp.float32, *, ids):
        table = (std * jax.random.normal(key, shape, dtype)).at[0].set(0.0)
        return table if shape[0] == ids else table.at[ids:].set(0.0)

    return init


def lookup(table: jax.Array, ids: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Rows of `table`. Padding (id 0) is the zero vector whatever the table holds, and passes no gradient on."""
    return jnp.where((ids != 0)[..., None], table[ids], 0).astype(dtype)


def mean_of_tags(table: jax.Array, tags: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """(..., L) tag ids → (..., E): mean over the non-padding ones; zero, with a finite gradient, if there are none."""
    count = (tags != 0).sum(axis=-1, keepdims=True)
    return lookup(table, tags, dtype).sum(axis=-2) / jnp.maximum(count, 1).astype(dtype)


class Embedded(NamedTuple):
    """What every model starts from."""

    side: jax.Array  # (B, S·E)
    target: jax.Array  # (B, D)
    history: jax.Array  # (B, N, D), zero at padding


class Embedding(nn.Module):
    """Owns every table; target and history share them. `items` is the item table (data.items.ItemTable)."""

    config: Config
    dtype: jnp.dtype

    def setup(self):
        features, model = self.config.features, self.config.model
        init = padded_normal(model.embedding_init_std)
        self.tables = {
            name: self.param(name, partial(init, ids=size), (self.config.table_rows(size), model.embedding_dim))
            for name, size in self.config.table_sizes.items()
        }
        self.projections = {
            f.name: nn.Dense(f.dim, use_bias=False, kernel_init=xavier_normal, dtype=self.dtype, name=f.name)
            for f in features.item_features
            if f.kind == "embedding" and model.project_mm
        }

    def __call__(self, batch: dict[str, jax.Array], items: dict[str, jax.Array], train: bool) -> Embedded:
        # Target and clicks in one lookup: so each table has one gradient, for devices to exchange once.
        ids_BxN1 = jnp.concatenate([batch["item"][:, None], batch["history"]], axis=1)
        vectors_BxN1xD = self.item(ids_BxN1, items, train)
        return Embedded(self.side(batch["side"]), vectors_BxN1xD[:, 0], vectors_BxN1xD[:, 1:])

    def item(self, ids: jax.Array, items: dict[str, jax.Array], train: bool) -> jax.Array:
        """(...,) item ids → (..., D), e_item of Eq. 3: id embedding, then the item features in the config's order."""
        features = self.config.features
        parts = [lookup(self.tables[features.item], self._learned(ids, train), self.dtype)]
        for f in features.item_features:
            values = jnp.asarray(items[f.name])[ids]
            if f.kind == "categorical":
                parts.append(lookup(self.tables[f.name], values, self.dtype))
            elif f.kind == "tags":
                parts.append(mean_of_tags(self.tables[f.name], values, self.dtype))
            elif f.kind == "codes":
                parts.append(lookup(self.tables[f.name], values, self.dtype).sum(axis=-2))
            elif f.kind == "neighbours":
                parts.append(mean_of_tags(self.tables[features.item], values, self.dtype))
            else:
                # Padding again: through the projection a NaN times a gradient of 0 would be NaN.
                values = jnp.where((ids != 0)[..., None], values, 0).astype(self.dtype)
                parts.append(self.projections[f.name](values) if self.config.model.project_mm else values)
        return jnp.concatenate(parts, axis=-1)

    def _learned(self, ids: jax.Array, train: bool) -> jax.Array:
        """The ids with 0 for those whose id embedding does not count: items that training did not know, and dropped
        ones."""
        rate = self.config.model.id_dropout
        ids = jnp.where(ids < self.config.features.num_items, ids, 0)
        if train and rate:
            ids = jnp.where(jax.random.bernoulli(self.make_rng("dropout"), rate, ids.shape), 0, ids)
        return ids

    def side(self, levels_BxS: jax.Array) -> jax.Array:
        """(B, S) side feature ids → (B, S·E)."""
        names = [side.name for side in self.config.features.side]
        parts = [lookup(self.tables[name], levels_BxS[:, i], self.dtype) for i, name in enumerate(names)]
        return jnp.concatenate(parts, axis=-1) if parts else jnp.zeros((len(levels_BxS), 0), self.dtype)
