"""Sums over lists of ids of any lengths, in time and memory that their ids take (`features.lists`).

How many ids a batch names is known in the step alone, so there is a loop; its gradient is written out here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def distinct(beyond_Nx2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(N, 2) each of the lists once, empty ones behind them, and (N,) where each of the given ones is among these."""
    starts, counts = beyond_Nx2[:, 0], beyond_Nx2[:, 1]
    key = jnp.where(counts > 0, starts, -1)  # an empty list begins where the first does
    _, first, of_list = jnp.unique(key, size=len(key), return_index=True, return_inverse=True)
    is_one = jnp.arange(len(key)) <= of_list.max()
    return jnp.where(is_one[:, None], beyond_Nx2[first], 0), of_list


def ids_beyond(beyond_Nx2: jax.Array, rest_T: jax.Array, size: int) -> jax.Array:
    """(size,) the ids below `size` that these lists name, each at its own place, zeros at the places of others."""

    def mark(named: jax.Array, ids: jax.Array, of_list: jax.Array) -> jax.Array:
        return named.at[ids].max(ids)

    return _over_chunks(mark, jnp.zeros(size, rest_T.dtype), beyond_Nx2, rest_T)


@jax.custom_vjp
def sums_beyond(table_RxE: jax.Array, beyond_Nx2: jax.Array, rest_T: jax.Array, rows_R: jax.Array | None) -> jax.Array:
    """(N, E) of each list the sum of its ids' rows.

    Args:
        table_RxE: A row for each id, or for each of `rows`.
        beyond_Nx2: Where the ids of each list begin in `rest`, and how many they are.
        rest_T: Ids, none of them 0.
        rows_R: The ids of the table's rows, rising; None: all.
    """

    def add(sums: jax.Array, ids: jax.Array, of_list: jax.Array) -> jax.Array:
        return sums.at[of_list].add(jnp.where((ids != 0)[:, None], table_RxE[_places(ids, rows_R)], 0))

    sums = jnp.zeros((len(beyond_Nx2), table_RxE.shape[1]), table_RxE.dtype)
    return _over_chunks(add, sums, beyond_Nx2, rest_T)


def _forward(table_RxE: jax.Array, *lists: Any) -> tuple[jax.Array, Any]:
    return sums_beyond(table_RxE, *lists), (table_RxE, *lists)


def _backward(kept: Any, grads_NxE: jax.Array) -> tuple[jax.Array, None, None, None]:
    table_RxE, beyond_Nx2, rest_T, rows_R = kept

    def add(grads: jax.Array, ids: jax.Array, of_list: jax.Array) -> jax.Array:
        return grads.at[_places(ids, rows_R)].add(jnp.where((ids != 0)[:, None], grads_NxE[of_list], 0))

    return _over_chunks(add, jnp.zeros_like(table_RxE), beyond_Nx2, rest_T), None, None, None


sums_beyond.defvjp(_forward, _backward)


def _places(ids: jax.Array, rows_R: jax.Array | None) -> jax.Array:
    return ids if rows_R is None else jnp.searchsorted(rows_R, ids)


def _over_chunks(
    step: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    beyond_Nx2: jax.Array,
    rest_T: jax.Array,
) -> jax.Array:
    """What steps make of `start`, one for each N ids: step(so far, ids, the list that each is of).

    The ids of a last step that are none are 0.
    """
    counts = beyond_Nx2[:, 1]
    ends, at_once = jnp.cumsum(counts), len(counts)

    def one(carried: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        at, so_far = carried
        place = at + jnp.arange(at_once, dtype=at.dtype)
        of_list = jnp.minimum(jnp.searchsorted(ends, place, side="right"), at_once - 1)
        in_rest = beyond_Nx2[of_list, 0] + place - (ends - counts)[of_list]
        ids = jnp.where(place < ends[-1], rest_T[in_rest], 0)
        return at + at_once, step(so_far, ids, of_list)

    at = jnp.zeros((), ends.dtype)
    return jax.lax.while_loop(lambda carried: carried[0] < ends[-1], one, (at, start))[1]
