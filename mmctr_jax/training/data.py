"""All that a training reads, checked before anything is written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from mmctr_jax.config import Config, TrainConfig
from mmctr_jax.data.admitted import rows_of_items
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.items import Items, ItemTable, load_items
from mmctr_jax.data.lengths import training_lengths
from mmctr_jax.data.loader import history_lengths
from mmctr_jax.data.numbering import Numbering, check_same_numbering, numbering_of
from mmctr_jax.data.parquet import part_files, read_keys
from mmctr_jax.devices.sharding import memory_per_device
from mmctr_jax.errors import InputError, UnfitError
from mmctr_jax.features.base import Fitted


@dataclass(frozen=True)
class TrainingData:
    """Items and rows of a training, and the configuration that they resolve."""

    config: Config
    """With the vocabularies found in the items."""
    items: Items
    train: Split
    valid: Split
    valid_users: np.ndarray | None
    """(rows of valid,) groups for grouped AUC; None where users are not known."""
    numbering: Numbering | None = None
    """How the ids were numbered, users where they are a feature; None where the files do not say."""

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """What the histories of a batch are padded to, rising."""
        return training_lengths(self.config.model, self.config.train, history_lengths(self.train))

    @property
    def kept(self) -> dict[str, str]:
        """What rows and items are kept under in the cache folder."""
        return {"train": self.train.fingerprint, "valid": self.valid.fingerprint, "items": self.items.key}

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of what was read, by the names of the files' settings in `data`."""
        return {
            "train": self.train.fingerprint,
            "valid": self.valid.fingerprint,
            "item_info": self.items.fingerprint,
        }


def load_training_data(
    config: Config,
    known: ItemTable | None = None,
    learned: tuple[ItemTable, dict[str, Fitted]] | None = None,
    kept: dict[str, str] | None = None,
) -> TrainingData:
    """Reads and checks all that training needs.

    Args:
        config: As the user wrote it, or resolved.
        known: As in `load_items`: the table of the run that is resumed.
        learned: As in `load_items`: of the run whose weights it begins with.
        kept: `TrainingData.kept` of another process: what it left in a cache folder that is this one's, too, is not
            read again.

    Raises:
        InputError: Something in the files is not as it must be.
    """
    numbering = numbering_of(config.data.item_info)
    for path in (config.data.train, config.data.valid):
        check_same_numbering(numbering_of(path), path, numbering, config.data.item_info)
    kept = kept or {}
    items = load_items(config.data.item_info, config.features, config.data.cache_dir, known, learned, kept.get("items"))
    config = config.with_features(items.features)
    cache_dir, features = config.data.cache_dir, config.features
    valid = load_split(config.data.valid, features, cache_dir, with_labels=True, fingerprint=kept.get("valid"))
    if valid.label.min() == valid.label.max():
        raise InputError(
            f"{config.data.valid}: every label is {valid.label[0]}; validation AUC needs rows of both classes."
        )
    train = load_split(config.data.train, features, cache_dir, True, training=True, fingerprint=kept.get("train"))
    if features.item_rows:
        items = replace(items, table=items.table | {features.item: _item_rows(items, train, config, known, learned)})
    users = read_keys(part_files(config.data.valid), features.user)
    if config.train.monitor == "gauc" and users is None:
        raise InputError(
            f"train.monitor is gauc, and {config.data.valid} has no column {features.user} to group rows by; add "
            "it, or monitor auc."
        )
    if config.train.monitor == "gauc":
        rows, clicks = np.bincount(users), np.bincount(users, valid.label)
        if not ((clicks > 0) & (clicks < rows)).any():
            raise InputError(
                f"train.monitor is gauc, and no {features.user} of {config.data.valid} has both a click and a "
                "non-click; monitor auc."
            )
    if numbering and features.user not in (feature.name for feature in features.side):
        numbering = {name: chain for name, chain in numbering.items() if name != features.user}
    return TrainingData(config, items, train, valid, users, numbering)


def _item_rows(
    items: Items, train: Split, config: Config, known: ItemTable | None, learned: tuple[ItemTable, Any] | None
) -> np.ndarray:
    features = items.features
    if known and features.item in known:
        return known[features.item]
    of_run = learned[0][features.item] if learned else None
    return rows_of_items(train, features.num_items, features.item_rows, config.data.cache_dir, of_run)


def check_batch_fills_devices(config: Config) -> None:
    """Raises: UnfitError if there are more devices than rows in a batch."""
    if config.train.batch_size < jax.device_count():
        raise UnfitError(
            f"train.batch_size {config.train.batch_size} is smaller than the number of devices, "
            f"{jax.device_count()}; raise it, or make fewer devices visible."
        )


def check_tables_fit_devices(config: Config) -> None:
    """Raises: UnfitError if the embedding tables are too large: one stray id may ask for billions of rows."""
    bytes_per_id, memory = 4 * _copies(config.train) * config.model.embedding_dim, memory_per_device()
    if config.train.sharding == "fsdp":
        memory *= jax.device_count()
    sizes = config.features.table_sizes
    if sum(sizes.values()) * bytes_per_id > memory:
        name = max(sizes, key=sizes.get)
        raise UnfitError(
            f"The embedding table of {name} would have {sizes[name]:,} ids and take "
            f"{sizes[name] * bytes_per_id / 2**30:,.0f} GiB in training, of {memory / 2**30:,.0f} GiB that there are; "
            "number its ids from 1 without large gaps, or lower vocab_size or model.embedding_dim."
        )


def _copies(train: TrainConfig) -> int:
    """Arrays of a table's size: itself, its gradient (not with `tables`), what its optimiser keeps, and its average."""
    table = jax.ShapeDtypeStruct((3, 2), np.float32)
    init = train.tables.init if train.tables else lambda table: train.optimizer.init({"table": table})
    kept = jax.tree.leaves(jax.eval_shape(init, table))
    return (1 if train.tables else 2) + sum(x.shape == table.shape for x in kept) + (train.ema is not None)
