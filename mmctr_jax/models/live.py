"""The part of a model that a batch needs: what follows from short histories alone.

Where no history is longer than L < K, the first K - L of the last K outputs are zero in every row. Zeros at the same
columns of f stay zero through every cross layer (Eq. 7), and add nothing to the deep layers: what they meet in the
weight matrices does nothing, and its gradient is zero. So the batch is computed by the model of first_k = L, whose
parameters are those of the whole one with these rows and columns left out. They are the same columns in every matrix:
f begins with [e_side ‖ e_target], and what follows it anywhere, ends with the rest.
"""

import itertools

import jax
import jax.numpy as jnp

from mmctr_jax.config.schema import Config


def narrowed(config: Config, length: int) -> Config:
    """The config whose model is enough for histories of at most `length` clicks."""
    transformer, dcn = getattr(config.model, "transformer", None), getattr(config.model, "dcn", None)
    if transformer is None or transformer.first_k <= length:
        return config
    if dcn is not None and not dcn.deep:  # the prediction MLP sees f twice: as c_3, and as it is
        return config
    transformer = transformer.model_copy(update={"first_k": length})
    return config.model_copy(update={"model": config.model.model_copy(update={"transformer": transformer})})


def _in_both(config: Config, whole: int, live: int) -> list[tuple[slice, slice]]:
    """Where the columns of the narrowed model (right) are in the whole one (left)."""
    if whole == live:
        return [(slice(0, whole), slice(0, whole))]
    start = len(config.features.side) * config.model.embedding_dim + config.item_width
    return [(slice(0, start), slice(0, start)), (slice(start + whole - live, whole), slice(start, live))]


def _blocks(config: Config, whole: tuple[int, ...], live: tuple[int, ...]) -> list[tuple[tuple, tuple]]:
    """The same of every axis: pairs of indices of blocks."""
    axes = [_in_both(config, *sizes) for sizes in zip(whole, live, strict=True)]
    return [tuple(zip(*block, strict=True)) for block in itertools.product(*axes)]


def _put(x: jax.Array, at: tuple[slice, ...], block: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, block, [s.start for s in at])


def cut(x: jax.Array, shape: tuple[int, ...], config: Config) -> jax.Array:
    """A parameter of the whole model → what the narrowed one has of it, whose shape this is."""
    if x.shape == shape:
        return x
    live = jnp.zeros(shape, x.dtype)
    for in_whole, in_live in _blocks(config, x.shape, shape):
        live = _put(live, in_live, x[in_whole])
    return live


def add(x: jax.Array, live: jax.Array, config: Config) -> jax.Array:
    """`x`, shaped as in the whole model, plus `live`, shaped as in a narrowed one, where it belongs."""
    if x.shape == live.shape:
        return x + live
    for in_whole, in_live in _blocks(config, x.shape, live.shape):
        x = _put(x, in_whole, x[in_whole] + live[in_live])
    return x
