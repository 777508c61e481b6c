"""Made-up batches, items and weights for the tiny models of `synthetic`, and made-up splits."""

import jax
import jax.numpy as jnp
import numpy as np
from synthetic import DIM, ITEMS, MAX_HISTORY, TAGS

from mmctr_jax.data.cache import Split

SIDES = ("likes_level", "views_level")
LENGTHS = [0, 1, 2, 3, 5, MAX_HISTORY - 1, MAX_HISTORY, MAX_HISTORY]


def make_items(rng):
    tags = rng.integers(0, TAGS, (ITEMS, 4)).astype(np.int32)
    tags[5] = 0  # an item without tags
    vectors = rng.normal(size=(ITEMS, DIM)).astype(np.float32)
    items = {"item_tags": tags, "item_emb_d8": vectors}
    items["codes"] = np.stack([rng.integers(1, 6, ITEMS), rng.integers(6, 11, ITEMS)], axis=1).astype(np.int32)
    items["neighbours"] = rng.integers(1, ITEMS, (ITEMS, 3)).astype(np.int32)
    for values in items.values():
        values[0] = 0
    return items


def make_batch(rng, lengths=LENGTHS, width=MAX_HISTORY):
    history = np.zeros((len(lengths), width), np.int32)
    for row, length in enumerate(lengths):
        history[row, width - length :] = rng.integers(1, ITEMS, length)
    return {
        "history": history,
        "item": rng.integers(1, ITEMS, len(lengths)).astype(np.int32),
        "side": dict(zip(SIDES, rng.integers(0, 11, (2, len(lengths))).astype(np.int32), strict=True)),
        "label": rng.integers(0, 2, len(lengths)).astype(np.float32),
        "weight": np.ones(len(lengths), np.float32),
    }


def features_of_many(items):
    """The tiny config's features, of so many items."""
    return {
        "num_items": items,
        "item_features": [
            {"kind": "tags", "name": "item_tags", "vocab_size": TAGS},
            {"kind": "embedding", "name": "item_emb_d8", "dim": DIM},
        ],
    }


def table_of_many(items):
    rng = np.random.default_rng(0)
    table = {
        "item_tags": rng.integers(0, TAGS, (items, 3), dtype=np.int32),
        "item_emb_d8": rng.standard_normal((items, DIM)).astype(np.float32),
    }
    for values in table.values():
        values[0] = 0
    return table


def batch_of_many(items, length, seed):
    """16 rows of full histories."""
    rng = np.random.default_rng(seed)
    return {
        "history": rng.integers(1, items, (16, length), dtype=np.int32),
        "item": rng.integers(1, items, 16, dtype=np.int32),
        "side": dict(zip(SIDES, rng.integers(0, 11, (2, 16), dtype=np.int32), strict=True)),
        "label": rng.integers(0, 2, 16).astype(np.float32),
        "weight": np.ones(16, np.float32),
    }


def rows_of(batch, rows):
    """Some rows of a batch, in this order."""
    return jax.tree.map(lambda values: values[rows], batch)


def randomised(params, rng):
    """Weights of order 1, so that every path matters (fresh embeddings are nearly 0); padding rows stay 0."""

    def draw(path, w):
        values = rng.normal(0, 0.3, w.shape).astype(np.float32)
        if path[0].key == "embedding" and path[-1].key != "kernel":
            values[0] = 0
        return jnp.asarray(values)

    return jax.tree_util.tree_map_with_path(draw, params)


def make_split(rows: int, seed: int = 0) -> Split:
    """Row i has target item i + 1, so that batches tell which rows they hold."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 9, rows)
    return Split(
        history_values=rng.integers(1, 100, lengths.sum()).astype(np.int32),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item=np.arange(1, rows + 1, dtype=np.int32),
        side={"likes_level": np.arange(rows, dtype=np.int32), "views_level": np.arange(rows, dtype=np.int32) % 7},
        label=(np.arange(rows) % 2).astype(np.uint8),
        fingerprint="",
    )
