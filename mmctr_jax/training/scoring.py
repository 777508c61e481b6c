"""Scores rows with a model: shared by validation during training and by predict.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mmctr_jax.config import Config
from mmctr_jax.data.cache import Split
from mmctr_jax.data.lengths import scoring_lengths
from mmctr_jax.data.loader import eval_batches, longest_first
from mmctr_jax.devices.sharding import on_devices, share
from mmctr_jax.training.step import make_narrow, make_predict_step

_FEWEST = 8  # rows of a batch


def rows_at_once(rows: int, most: int) -> int:
    """A power of two that holds so many rows, or `most`: of few sizes, each compiled once.

    A service asks for as many rows as there happen to be.
    """
    return min(most, max(1 << (rows - 1).bit_length(), _FEWEST))


def make_score(config: Config, mesh: Mesh) -> Callable:
    """`(params, batch_stats, split, items, on_rows) → (rows,) float32 logits` of every row of `split`, each once.

    (rows, 1 + L) where the model has L labels besides the first. The logits are in the split's order, on every process
    alike. Rows are computed from the longest history to the shortest, so that a batch is as long as its rows need.
    `on_rows` is told how many were scored since its last call.
    """
    narrow, predict_step = make_narrow(config, mesh), make_predict_step(config, mesh)

    def score(
        params: Any,
        batch_stats: Any,
        split: Split,
        items: dict[str, jax.Array],
        on_rows: Callable[[int], None] = lambda rows: None,
    ) -> np.ndarray:
        batch_size = rows_at_once(split.rows, config.train.eval_batch_size)
        order = longest_first(split)
        batches = eval_batches(
            split, order, batch_size=batch_size, lengths=scoring_lengths(config.model, config.train), share=share()
        )
        more = len(config.features.other_labels)
        logits = np.empty((split.rows, 1 + more) if more else split.rows, np.float32)
        done, length = 0, None
        waiting: jax.Array | None = None

        def take(logits_B: jax.Array) -> None:
            nonlocal done
            rows = order[done : done + batch_size]  # what follows is filling
            logits[rows] = np.asarray(logits_B)[: len(rows)]
            done += len(rows)
            on_rows(len(rows))

        for batch in on_devices(batches, mesh):
            if batch["history"].shape[1] != length:
                length = batch["history"].shape[1]
                enough = None  # before the next is made
                enough = narrow(params, items, length)
            logits_B = predict_step(enough, batch_stats, batch, items)
            if waiting is not None:  # read one batch behind, so that the device never waits for the host
                take(waiting)
            waiting = logits_B
        if waiting is not None:
            take(waiting)
        assert done == split.rows, (done, split.rows)
        return logits

    return score
