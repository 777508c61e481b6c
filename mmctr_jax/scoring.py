"""Scores rows with a model: shared by validation during training and by predict.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmctr_jax.data.cache import Split
from mmctr_jax.data.loader import eval_batches
from mmctr_jax.sharding import put_batch, share


def score(
    predict_step: Callable,
    params: Any,
    batch_stats: Any,
    split: Split,
    items: dict[str, jax.Array],
    mesh: Mesh,
    *,
    batch_size: int,
    length: int,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """(rows,) float32 logits of every row of `split`, each once, in its order; on every process alike.

    `on_rows` is told how many rows were scored since its last call.
    """
    batch_size = min(batch_size, split.rows)
    chunks: list[np.ndarray] = []
    waiting: jax.Array | None = None

    def take(logits_B: jax.Array) -> None:
        rows = min(batch_size, split.rows - batch_size * len(chunks))  # what follows is filling
        chunks.append(np.asarray(logits_B)[:rows])
        on_rows(rows)

    for batch in eval_batches(split, batch_size=batch_size, length=length, share=share()):
        logits_B = predict_step(params, batch_stats, put_batch(batch, mesh), items)
        if waiting is not None:  # read one batch behind, so that the device never waits for the host
            take(waiting)
        waiting = logits_B
    if waiting is not None:
        take(waiting)
    logits = np.concatenate(chunks)
    assert len(logits) == split.rows, (len(logits), split.rows)
    return logits
