"""The part of a model that a batch needs: what follows from short histories alone.

Where no history is longer than L < K, the first K - L of the last K outputs are zero in every row. Zeros at the same
columns of f stay zero through every cross layer (Eq. 7), and add nothing to the deep layers: what they meet in the
weight matrices does nothing, and its gradient is zero. So the batch is computed by the model of first_k = L
(`ModelSettings.narrowed`), whose
parameters are those of the whole one with these rows and columns left out. They are the same columns in every matrix:
f begins with [e_side ‖ e_target], and what follows it anywhere, ends with the rest.
"""

import itertools

import jax
import jax.numpy as jnp

from mmctr_jax.features import Features
from mmctr_jax.models.base import ModelSettings


def leading_columns(features: Features, settings: ModelSettings) -> int:
    """How many columns [e_side ‖ e_target] take, at the start of f and of every matrix that is narrowed."""
    return features.row_width(settings.embedding_dim) + features.click_width(settings.embedding_dim)


def _in_both(whole: int, live: int, leading: int) -> list[tuple[slice, slice]]:
    """Where the columns of the narrowed model (right) are in the whole one (left)."""
    if whole == live:
        return [(slice(0, whole), slice(0, whole))]
    return [(slice(0, leading), slice(0, leading)), (slice(leading + whole - live, whole), slice(leading, live))]


def _blocks(whole: tuple[int, ...], live: tuple[int, ...], leading: int) -> list[tuple[tuple, tuple]]:
    """The same of every axis: pairs of indices of blocks."""
    axes = [_in_both(*sizes, leading) for sizes in zip(whole, live, strict=True)]
    return [tuple(zip(*block, strict=True)) for block in itertools.product(*axes)]


def _put(x: jax.Array, at: tuple[slice, ...], block: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, block, [s.start for s in at])


def cut(x: jax.Array, shape: tuple[int, ...], leading: int) -> jax.Array:
    """A parameter of the whole model → what the narrowed one, whose shape this is, has of it.

    leading: `leading_columns`, here and below.
    """
    if x.shape == shape:
        return x
    live = jnp.zeros(shape, x.dtype)
    for in_whole, in_live in _blocks(x.shape, shape, leading):
        live = _put(live, in_live, x[in_whole])
    return live


def add(x: jax.Array, live: jax.Array, leading: int) -> jax.Array:
    """`x`, shaped as in the whole model, plus `live`, shaped as in a narrowed one, where it belongs."""
    if x.shape == live.shape:
        return x + live
    for in_whole, in_live in _blocks(x.shape, live.shape, leading):
        x = _put(x, in_whole, x[in_whole] + live[in_live])
    return x


# The same for GPUs: as one expression, which their compiler makes part of the pass that uses it. On a CPU that takes
# three times as long as copying blocks.


def cut_at_once(x: jax.Array, shape: tuple[int, ...], leading: int) -> jax.Array:
    """`cut`, for GPUs."""
    for axis, (whole, live) in enumerate(zip(x.shape, shape, strict=True)):
        if whole != live:
            x = _moved(x, leading, leading + whole - live, leading, live, axis)
    return x


def add_at_once(x: jax.Array, live: jax.Array, leading: int) -> jax.Array:
    """`add`, for GPUs."""
    for axis, (whole, part) in enumerate(zip(x.shape, live.shape, strict=True)):
        if whole != part:
            live = _moved(live, leading, leading, leading + whole - part, whole, axis)
    return x + live


def _moved(x: jax.Array, end: int, start: int, to: int, size: int, axis: int) -> jax.Array:
    """x[:end] where it is, x[start:] moved to `to`, along an axis that is `size` long then; zeros elsewhere.

    A sum of padded parts and no concatenation, of which XLA makes a pass of its own.
    """

    def padded(part: jax.Array, before: int) -> jax.Array:
        room = [(0, 0, 0)] * x.ndim
        room[axis] = (before, size - before - part.shape[axis], 0)
        return jax.lax.pad(part, jnp.zeros((), x.dtype), room)

    first, rest = (jax.lax.slice_in_dim(x, *ends, axis=axis) for ends in ((0, end), (start, None)))
    return padded(first, 0) + padded(rest, to)
