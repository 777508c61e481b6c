"""Which items have a row of their own in a table of fewer rows than items (`features.item_rows`)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmctr_jax.console import log
from mmctr_jax.data.cache import Split
from mmctr_jax.data.kept import built

_AT_ONCE = 2**24  # ids


def rows_of_items(
    train: Split, num_items: int, size: int, cache_dir: str | Path, learned: np.ndarray | None = None
) -> np.ndarray:
    """(num_items,) int32: each item's row of a table of `size`, from 1; 0 for those that have none.

    The items that the training rows name most often, as target or click, have one; of equals those of lower ids.
    learned: the same of the run whose weights a training begins with. Its items keep their rows, and what is left of
      the table goes to others.
    Raises: InputError if the cache folder cannot be written.
    """
    named = built(cache_dir, f"named-{train.fingerprint[:24]}", lambda folder: _build(folder, train, num_items))
    named = named.array("named")
    rows = np.zeros(num_items, np.int32) if learned is None else np.pad(learned, (0, num_items - len(learned)))
    used = int(rows.max(initial=0))
    waiting = np.flatnonzero((rows == 0) & (named > 0))
    admitted = waiting[np.argsort(-named[waiting], kind="stable")][: max(size - 1 - used, 0)]
    rows[admitted] = np.arange(used + 1, used + 1 + len(admitted))
    share = named[rows > 0].sum() / max(named.sum(), 1)
    log.info(
        f"{np.count_nonzero(rows):,} of {num_items - 1:,} items have a row of their own (features.item_rows): "
        f"{share:.0%} of what the training rows name."
    )
    return rows


def _build(folder: Path, train: Split, num_items: int) -> dict:
    named = np.bincount(train.item, minlength=num_items)
    for start in range(0, len(train.history_values), _AT_ONCE):
        named += np.bincount(train.history_values[start : start + _AT_ONCE], minlength=num_items)
    named[0] = 0
    named.tofile(folder / "named.bin")
    return {"arrays": {"named": [named.dtype.name, list(named.shape)]}}
