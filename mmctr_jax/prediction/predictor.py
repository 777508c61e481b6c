"""A trained model, ready to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mmctr_jax.config import Config
from mmctr_jax.console import Progress, log
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.items import ItemTable, with_new_items
from mmctr_jax.data.numbering import check_same_numbering, numbering_of
from mmctr_jax.devices.sharding import make_mesh, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training import metrics
from mmctr_jax.training.scoring import make_score
from mmctr_jax.training.step import abstract_state


def restore_best(directory: Path, config: Config, items: Any, mesh: Mesh) -> tuple[int, Any, Any]:
    """Step, parameters and running means of a run's best validation. Raises InputError."""
    with RunDirectory(directory).checkpoints() as checkpoints:
        if not checkpoints.steps:
            raise InputError(f"{directory} has no checkpoint yet; let the training reach its first one.")
        return checkpoints.restore_best(abstract_state(config, items, mesh))


@dataclass
class Predictor:
    """A trained model on this host's devices."""

    config: Config
    step: int
    num_items: int  # that it can score, those beyond `config.features.num_items` by their features alone
    table: ItemTable  # of that many items
    params: Any
    batch_stats: Any
    _score: Callable[[Split, Callable[[int], None]], np.ndarray]

    @classmethod
    def load(cls, directory: Path, item_info: str | Path | None = None, precision: str | None = None) -> Predictor:
        """The checkpoint of the best validation in a run directory.

        item_info: a newer one than training's; what it has beyond that can be scored, too. precision: that it computes
        in; null: the run's own.
        Raises: InputError.
        """
        run = RunDirectory(directory)
        config = run.read_config()
        if precision is not None:
            config = config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})
        mesh, table, num_items = make_mesh(), run.read_items(), config.features.num_items
        if item_info is not None:
            check_same_numbering(numbering_of(item_info), item_info, run.read_metadata().get("numbering"), directory)
            table, num_items, remarks = with_new_items(config.features, table, run.read_codebooks(), item_info)
            for remark in remarks:
                log.warning(remark)
        items = put_items(table, mesh, config)
        step, params, batch_stats = restore_best(directory, config, items, mesh)
        score = make_score(config, mesh)

        def score_split(split: Split, on_rows: Callable[[int], None]) -> np.ndarray:
            return score(params, batch_stats, split, items, on_rows)

        return cls(config, step, num_items, table, params, batch_stats, score_split)

    def logits(self, path: str | Path) -> np.ndarray:
        """(rows,) float32 logits of a Parquet file's or folder's rows, in their order; those of the first label.

        Raises: InputError.
        """
        return metrics.first(self.all_logits(path))

    def all_logits(self, path: str | Path) -> np.ndarray:
        """`logits`; (rows, 1 + L) where the model has L labels besides the first (`Features.other_labels`)."""
        features = self.config.features.with_items(self.num_items)
        split = load_split(path, features, cache_dir=None, with_labels=False)
        if self.num_items > self.config.features.num_items:
            self._tell_of_new_items(split)
        return self._scored(split)

    def score(self, split: Split) -> np.ndarray:
        """(rows,) float32 logits of rows that are read already; those of the first label."""
        return metrics.first(self._scored(split))

    def _scored(self, split: Split) -> np.ndarray:
        with Progress("Scoring", split.rows, "samples") as bar:
            return self._score(split, bar.advance)

    def _tell_of_new_items(self, split: Split) -> None:
        trained = self.config.features.num_items
        target = split.item >= trained
        before = np.concatenate([[0], np.cumsum(split.history_values >= trained)])
        starts, ends = split.history_offsets[:-1], split.history_offsets[1:]
        clicked = before[ends] > before[np.maximum(starts, ends - self.config.model.max_history)]
        log.info(
            f"{self.num_items - trained:,} items are new since training. Of {split.rows:,} rows, {target.sum():,} have "
            f"one as the target and {(clicked & ~target).sum():,} more in the history: such items are scored without "
            "an id embedding, by their features alone."
        )
