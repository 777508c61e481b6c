"""Norms of gradients: of all together, and of each layer and table; computed in few operations. And clipping to one.

A reduction of each array by itself would be more work to start than to do: the published model has some fifty arrays,
nearly all of them small.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_LARGE = 2**18  # numbers; arrays with fewer are laid side by side
_ROW = 128
_ROWS = 2**15  # of a matrix whose rows are summed first; more of them are a table of embeddings


def group_names(tree: Any) -> list[str]:
    """The layers and tables of a tree of parameters, such as `cross/layer_0` and `embedding/item_id`."""
    return list(dict.fromkeys(_group(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)))


def squares_by_group(tree: Any) -> jax.Array:
    """(G,): the sum of the squares of each group of `group_names`."""
    names = group_names(tree)
    sums, groups, small, small_groups = [], [], [], []
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        group = names.index(_group(path))
        if x.size < _LARGE:
            small.append(jnp.pad(x.ravel(), (0, -x.size % _ROW)))
            small_groups.append(np.full(small[-1].size // _ROW, group))
        else:  # by rows: all sums of rows are added up at once, below
            by_rows = x.ndim == 2 and len(x) <= _ROWS
            sums.append(jnp.square(x).sum(axis=1 if by_rows else None).ravel())
            groups.append(np.full(sums[-1].size, group))
    if small:
        sums.append(jnp.square(jnp.concatenate(small).reshape(-1, _ROW)).sum(axis=1))
        groups += small_groups
    sums_R, group_R = jnp.concatenate(sums), np.concatenate(groups)
    return jnp.where(group_R[:, None] == np.arange(len(names)), sums_R[:, None], 0).sum(axis=0)


def clipped(grads: Any, clip_norm: float) -> tuple[Any, jax.Array]:
    """The gradients, scaled down to the norm `clip_norm` of all together; and their norm before."""
    with jax.named_scope("clipping"):
        norm = jnp.sqrt(squares_by_group(grads).sum())
        # The 1e-6 is that of torch's clip_grad_norm_, which the reference uses; optax's own clipping has none.
        scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
    with jax.named_scope("optimizer"):
        return jax.tree.map(lambda g: g * scale, grads), norm


def _group(path: Any) -> str:
    return "/".join(str(key.key) for key in path[:2])
