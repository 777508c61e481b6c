"""A trained model, ready to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jax
import numpy as np
from jax.sharding import Mesh
from scipy.special import expit

from mmctr_jax.config import Config
from mmctr_jax.config.schema import Precision
from mmctr_jax.console import Progress, log, root_logger_kept, unsaid
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.in_memory import as_file
from mmctr_jax.data.items import ItemTable, with_new_items
from mmctr_jax.data.lengths import scoring_lengths
from mmctr_jax.data.loader import empty_batch, eval_batches
from mmctr_jax.data.numbering import check_same_numbering, numbering_of
from mmctr_jax.devices.flags import plain_jax
from mmctr_jax.devices.sharding import make_mesh, on_devices, put_items, share
from mmctr_jax.errors import InputError
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.calibration import Calibration
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied
from mmctr_jax.training import metrics
from mmctr_jax.training.scoring import make_score, rows_at_once
from mmctr_jax.training.step import abstract_state, make_vectors_step

Rows = Any
"""A Parquet file or folder by its path, or rows in memory (`data.in_memory`)."""
_ITEMS_AT_ONCE = 8192


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
    directory: Path
    _calibration: Calibration | InputError | None
    _score: Callable[[Split, Callable[[int], None]], np.ndarray]
    _vectors: Callable
    _items: dict[str, jax.Array]
    _mesh: Mesh

    @classmethod
    @plain_jax()
    @root_logger_kept()
    def load(
        cls, directory: str | Path, item_info: str | Path | None = None, precision: str | None = None
    ) -> Predictor:
        """The checkpoint of the best validation in a run directory.

        item_info: a newer one than training's; what it has beyond that can be scored, too. precision: that it computes
        in; null: the run's own.
        Raises: InputError.
        """
        directory = copied(directory)
        run = RunDirectory(directory)
        config = run.read_config()
        if precision is not None:
            if precision not in get_args(Precision):
                raise InputError(
                    f"Precision {precision!r} is not known; it is one of {', '.join(get_args(Precision))}."
                )
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

        vectors = make_vectors_step(config)
        try:
            fitted = calibration.read(directory, step)
        except InputError as error:
            fitted = error
        return cls(
            config, step, num_items, table, params, batch_stats, directory, fitted, score_split, vectors, items, mesh
        )

    @property
    def calibration(self) -> Calibration | None:
        """The run's, as it was when it was loaded. Raises: InputError if that was damaged."""
        if isinstance(self._calibration, InputError):
            raise self._calibration
        return self._calibration

    def score(self, rows: Rows) -> np.ndarray:
        """(rows,) float32 click probabilities, calibrated if the run is.

        Args:
            rows: A Parquet file or folder, or in memory a dictionary of columns, a pyarrow table, or a polars or pandas
                frame, with the columns of the prepared files. They are checked as files are.

        Raises:
            InputError: Something in the rows is not as it must be, such as an id that no item has.
        """
        logits, fitted = self.logits(rows), self.calibration
        return expit(logits if fitted is None else fitted.apply(logits)).astype(np.float32)

    def logits(self, rows: Rows) -> np.ndarray:
        """(rows,) float32 logits of rows, in their order, not calibrated; those of the first label. As `score`."""
        return metrics.first(self.all_logits(rows))

    def all_logits(self, rows: Rows) -> np.ndarray:
        """`logits`; (rows, 1 + L) where the model has L labels besides the first (`Features.other_labels`)."""
        if isinstance(rows, str | Path):
            return self._scored(self._read(rows))
        with unsaid():
            return self._scored(self._read(rows))

    def score_split(self, split: Split) -> np.ndarray:
        """(rows,) float32 logits of rows that are read and checked already; those of the first label."""
        return metrics.first(self._scored(split))

    @plain_jax()
    def warm_up(self, rows: int = 1024) -> None:
        """Compiles what scoring so many rows, or fewer, will need: otherwise the first call of each size does."""
        features, config = self.config.features, self.config
        count = 1
        while True:
            for length in (0, *scoring_lengths(config.model, config.train)):
                clicks = np.ones(count * length, np.int32)
                side = {f.name: f.padding(count) for f in features.side}
                of_clicks = {f.name: f.padding(len(clicks)) for f in features.clicks}
                offsets = np.arange(count + 1) * length
                split = Split(clicks, offsets, np.ones(count, np.int32), side, None, "", clicks=of_clicks)
                with unsaid():
                    self._scored(split)
            if count >= min(rows, config.train.eval_batch_size):
                return
            count *= 2

    @plain_jax()
    def item_vectors(self) -> np.ndarray:
        """(items, W) float32 vectors by item id, that of padding being the first.

        Of the matching model what is compared with `user_vectors`: unit vectors, whose product is the affinity. Of
        other models the item as the model sees it (Eq. 3): for neighbours.
        """
        size, found = min(_ITEMS_AT_ONCE, self.num_items), []
        for start in range(0, self.num_items, size):
            ids = np.minimum(np.arange(start, start + size), self.num_items - 1).astype(np.int32)
            batch = empty_batch(self.config.features, size, self.config.model.max_history) | {"item": ids}
            found.append(np.asarray(self._vectors(self.params, self.batch_stats, batch, self._items)["item_vector"]))
        return np.concatenate(found)[: self.num_items]

    @plain_jax()
    def user_vectors(self, rows: Rows) -> np.ndarray:
        """(rows, W) float32 vectors of the rows' histories, for retrieval by their product with `item_vectors`.

        Raises: InputError, too, if the model has none; the matching model has.
        """
        if self.config.model.name != "matching":
            raise InputError(
                f"model.name {self.config.model.name} has no vectors of users: it sees a history with its "
                "target alone; train the matching model."
            )
        with unsaid():
            split = self._read(rows)
        size = rows_at_once(split.rows, self.config.train.eval_batch_size)
        batches = eval_batches(
            split, np.arange(split.rows), batch_size=size, lengths=(self.config.model.max_history,), share=share()
        )
        found = [
            np.asarray(self._vectors(self.params, self.batch_stats, batch, self._items)["user_vector"])
            for batch in on_devices(batches, self._mesh)
        ]
        return np.concatenate(found)[: split.rows]

    def _read(self, rows: Rows) -> Split:
        features = self.config.features.with_items(self.num_items)
        if isinstance(rows, str | Path):
            split = load_split(rows, features, cache_dir=None, with_labels=False)
        else:
            with as_file(rows) as path:
                split = load_split(path, features, cache_dir=None, with_labels=False)
        if self.num_items > self.config.features.num_items:
            self._tell_of_new_items(split)
        return split

    def _scored(self, split: Split) -> np.ndarray:
        with plain_jax(), Progress("Scoring", split.rows, "samples") as bar:
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
