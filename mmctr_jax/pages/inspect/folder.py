"""The folder to look at → its columns, items and rows, read with the checks that training makes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmctr_jax.config import load_config
from mmctr_jax.console import log
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.items import ItemTable, load_items
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import column_names, part_files, read_columns, read_shared_keys, read_whole
from mmctr_jax.errors import InputError
from mmctr_jax.features import EmbeddingFeature, Features, TagsFeature
from mmctr_jax.prepare.folder import config_path, read_manifest

_ANY_ID = 2**31 - 1  # vocabulary of a side feature that no config describes


@dataclass(frozen=True)
class Folder:
    """What is in a folder."""

    name: str
    features: Features  # resolved; item features are columns of item_info, those derived in training left out
    max_history: int | None  # the config's; null without a config
    items: ItemTable
    splits: dict[str, Split]  # train, valid and, if there, test; a test split has labels where they are known
    users: dict[str, np.ndarray]  # split → (rows,) int64, the same user the same code; empty where not known
    names: dict[str, dict[int, str]]  # column → id → what it stands for, from vocabularies/

    @property
    def side(self) -> list[str]:
        """The side features that are one number a row."""
        return [f.name for f in self.features.side if self.splits["train"].side[f.name].ndim == 1]


def read_folder(folder: Path, config: Path | None) -> Folder:
    """Reads DIR/train, valid, test, test_labels and item_info; the columns are those of `config` (see `_columns`).

    Raises: InputError if a file, column or row is not as training needs it.
    """
    paths = {name: _path(folder, name) for name in ("train", "valid", "test", "test_labels", "item_info")}
    files = {name: part_files(path) for name, path in paths.items() if path.exists() or not name.startswith("test")}
    features, max_history = _columns(folder, config, files)
    with tempfile.TemporaryDirectory(prefix="mmctr_") as temporary:  # maps outlive their files' names
        items = load_items(paths["item_info"], features, temporary)
    features = items.features
    splits = {
        "train": _with_classes(load_split(paths["train"], features, None, with_labels=True, training=True)),
        "valid": load_split(paths["valid"], features, None, with_labels=True),
    }
    if "test" in files:
        test = load_split(paths["test"], features, None, with_labels=False)
        labels = paths["test_labels"] if "test_labels" in files else None
        splits["test"] = replace(test, label=read_labels(files["test"], features.label, labels, features.id_columns))
    everywhere = all(features.user in column_names(files[name]) for name in splits)
    users = read_shared_keys({name: files[name] for name in splits}, features.user) if everywhere else {}
    columns = [f.name for f in (*features.side, *features.item_features)]
    names = {column: _names(folder / "vocabularies" / f"{column}.parquet") for column in columns}
    return Folder(folder.resolve().name, features, max_history, items.table, splits, users, names)


def _with_classes(train: Split) -> Split:
    """Labels of training rows may lie between 0 and 1; what is measured here is of 0 and 1."""
    label = np.asarray(train.label) >= 0.5
    if soft := int(np.sum(label != train.label)):
        log.info(f"{soft:,} labels of training rows lie between 0 and 1; from 0.5 on they count as 1 here.")
    return replace(train, label=label.astype(np.uint8), weight=None)


def _path(folder: Path, name: str) -> Path:
    path = folder / f"{name}.parquet"
    return folder / name if not path.exists() and (folder / name).is_dir() else path


def _columns(folder: Path, config: Path | None, files: dict[str, list[Path]]) -> tuple[Features, int | None]:
    """The config's features and history length; of the folder's own config where none is named; else what is there."""
    manifest = read_manifest(folder)
    if config is None and manifest and config_path(folder, manifest).is_file():
        config = config_path(folder, manifest)
    if config is None:
        return _present(files), None
    loaded = load_config(config)
    columns = tuple(loaded.features.item_columns.values())  # of what is derived, the source is what there is to look at
    features = loaded.features.model_copy(update={"item_features": columns})
    return features, loaded.model.max_history


def _present(files: dict[str, list[Path]]) -> Features:
    """The default columns that the files have; vectors are columns named item_emb…, of the width that they have."""
    default = Features()
    in_train, in_items = column_names(files["train"]), column_names(files["item_info"])
    side = tuple(s.model_copy(update={"vocab_size": _ANY_ID}) for s in default.side if s.name in in_train)
    tags = [TagsFeature(name="item_tags")] if "item_tags" in in_items else []
    widths = {name: _width(files["item_info"], name) for name in in_items if name.startswith("item_emb")}
    vectors = [EmbeddingFeature(name=name, dim=width) for name, width in widths.items()]
    return default.model_copy(update={"side": side, "item_features": (*tags, *vectors)})


def _width(files: list[Path], column: str) -> int:
    """Of the first vector that is not empty."""
    for chunk in read_columns(files, [column]):
        try:
            width = pc.max(pc.list_value_length(chunk[column].array)).as_py()
        except pa.ArrowNotImplementedError:
            problem = f"column {column} has type {chunk[column].array.type}; item_emb… must be lists of floats."
            raise InputError(f"{files[0]}: {problem}") from None
        if width:
            return width
    raise InputError(f"{files[0]}: column {column} holds no vector; fill it, or drop the column.")


def _names(file: Path) -> dict[int, str]:
    """Id → text; empty where prepare wrote no vocabulary."""
    if not file.is_file():
        return {}
    ids, texts = (read_whole([file], column).to_pylist() for column in ("id", "value"))
    return dict(zip(ids, map(str, texts), strict=True))
