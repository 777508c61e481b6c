"""Semantic similarity of the target and each click: cosines of frozen vectors, and their histogram."""

import jax
import jax.numpy as jnp

from mmctr_jax.features import Features


def check_vectors(setting: str, features: Features) -> None:
    """Raises: ValueError, naming the setting that compares frozen vectors, if no feature has any."""
    if not features.vectors:
        raise ValueError(
            f"{setting} compares frozen vectors and features.item_features has none of kind embedding; "
            "add one, or drop the setting"
        )


def cosines(batch: dict[str, jax.Array], items: dict[str, jax.Array], features: Features) -> jax.Array:
    """(B, N, C): cosine of each click's and the target's vectors, for each of the C features with frozen vectors.

    0 where either is padding or the zero vector.
    """
    columns = []
    for f in features.vectors:
        unit_BxNxd = _unit(items[f.name], batch["history"])
        columns.append((unit_BxNxd * _unit(items[f.name], batch["item"])[:, None]).sum(axis=-1))
    return jnp.stack(columns, axis=-1) if columns else jnp.zeros((*batch["history"].shape, 0))


def _unit(table: jax.Array, ids: jax.Array) -> jax.Array:
    vectors = jnp.where((ids != 0)[..., None], jnp.asarray(table)[ids], 0)
    vectors = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    norm = jnp.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / jnp.where(norm > 0, norm, 1)


def histogram(cosines_BxNxC: jax.Array, history_BxN: jax.Array, bins: int) -> jax.Array:
    """(B, C·bins): shares of the clicks in `bins` equal parts of [-1, 1]; zeros for an empty history.

    (SimTier: Sheng et al. 2024, arXiv 2407.19467, which takes counts; shares do not grow with the history.)
    """
    real_BxN = history_BxN != 0
    bin_BxNxC = jnp.clip(((cosines_BxNxC + 1) / 2 * bins).astype(jnp.int32), 0, bins - 1)
    hits = jax.nn.one_hot(bin_BxNxC, bins) * real_BxN[..., None, None]
    shares = hits.sum(axis=1) / jnp.maximum(real_BxN.sum(axis=1), 1)[:, None, None]
    return shares.reshape(shares.shape[0], -1)
