"""The item table: what is known of every item, held once, on the device, by item id. Batches carry ids only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmctr_jax.config.schema import (
    CategoricalFeature,
    CodesFeature,
    Config,
    EmbeddingFeature,
    FeaturesConfig,
    NeighboursFeature,
    TagsFeature,
)
from mmctr_jax.data.fitted import Derived, derive, encode, neighbours
from mmctr_jax.data.parquet import Column, count_rows, part_files, read_columns
from mmctr_jax.errors import InputError

ItemTable = dict[str, np.ndarray]
"""Item feature name → (V,) int32 categorical ids; (V, L) int32 tags, codes or neighbours, padded with 0; or (V, dim)
float32 vectors."""


_Column = CategoricalFeature | TagsFeature | EmbeddingFeature


@dataclass(frozen=True)
class Items:
    """What item_info gives."""

    config: Config  # with null `num_items` and item vocabularies filled in
    table: ItemTable
    fingerprint: str  # of what was read, by item; not of what was derived from it
    codebooks: dict[str, Derived]  # of each codes feature fitted: centroids, codes in `used` and `error`, by level


def load_items(config: Config, known: ItemTable | None = None) -> Items:
    """Reads item_info: item ids in any order, each exactly once, without gaps; padding row 0 may be left out.

    known: a table whose derived features are taken as they are: a run that goes on keeps the codes it began with.
    Raises: InputError on duplicate, negative or missing ids, a row 0 that is not all zero, ids beyond a vocabulary,
    vectors of another width or not finite.
    """
    path, features = config.data.item_info, config.features
    by_item, num_items = _read_items(path, features, _columns(features))
    if features.num_items not in (None, num_items):
        raise InputError(
            f"{path} has {num_items:,} items, padding item 0 included, and features.num_items is "
            f"{features.num_items:,}; set it to null or to the file's number."
        )
    table, resolved, codebooks = {}, [], {}
    for feature in features.item_features:
        if isinstance(feature, (CodesFeature, NeighboursFeature)):
            if known and feature.name in known:
                table[feature.name] = known[feature.name]
            else:
                derived = derive(by_item[feature.source], feature, config.data.cache_dir)
                table[feature.name] = derived["ids"]
                if feature.kind == "codes":
                    codebooks[feature.name] = {key: derived[key] for key in ("centroids", "used", "error")}
        else:
            table[feature.name] = by_item[feature.name]
            if not isinstance(feature, EmbeddingFeature) and feature.vocab_size is None:
                feature = feature.model_copy(update={"vocab_size": int(by_item[feature.name].max()) + 1})
        resolved.append(feature)
    features = features.model_copy(update={"num_items": num_items, "item_features": tuple(resolved)})
    return Items(config.model_copy(update={"features": features}), table, fingerprint(by_item), codebooks)


def with_new_items(
    config: Config, known: ItemTable, centroids: dict[str, np.ndarray], path: str | Path
) -> tuple[ItemTable, int, list[str]]:
    """The table of training, `known`, and after it the items of a newer item_info that training did not have.

    Known items stay as training saw them. Tags and categories that training did not have become padding; codes are the
    nearest of training's `centroids` (by feature), neighbours those among its items.
    Returns the table, its number of items, and sentences on what the user should know.
    Raises: InputError as `load_items`, or if the file is of other items.
    """
    features, remarks = config.features, []
    columns = _columns(features)
    # Their vocabularies are checked below: what is beyond them is no fault here.
    open_ended = {
        name: c if c.kind == "embedding" else c.model_copy(update={"vocab_size": None}) for name, c in columns.items()
    }
    by_item, num_items = _read_items(path, features, open_ended)
    trained = features.num_items
    if num_items < trained:
        raise InputError(f"{path} has {num_items:,} items, and training had {trained:,}; ids must stay what they were.")
    changed = np.zeros(trained, bool)
    new: ItemTable = {}
    for f in features.item_features:
        if f.kind == "codes":
            new[f.name] = encode(by_item[f.source][trained:], centroids[f.name])
        elif f.kind == "neighbours":
            new[f.name] = neighbours(by_item[f.source], f, among=trained)[trained:]
        else:
            values = by_item[f.name]
            if f.kind != "embedding":
                unknown = values >= f.vocab_size
                if unknown.any():
                    remarks.append(
                        f"{path}: {np.count_nonzero(unknown):,} ids in {f.name} are new since training and count as "
                        "unknown."
                    )
                values = np.where(unknown, 0, values)
            new[f.name] = values[trained:]
            changed |= _differ(values[:trained], known[f.name])
    if 2 * np.count_nonzero(changed) > trained:
        raise InputError(
            f"{path}: {np.count_nonzero(changed):,} of the {trained:,} items of training have other features now, so "
            "their ids seem to mean other items; new items must come after the known ones."
        )
    if changed.any():
        remarks.append(
            f"{path}: {np.count_nonzero(changed):,} items have other features than in training, the first item "
            f"{np.flatnonzero(changed)[0]}; they are scored as they were."
        )
    table = {name: np.concatenate(_same_width(known[name], values)) for name, values in new.items()}
    return table, num_items, remarks


def _same_width(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lists of ids padded to the longer one's length."""
    if a.ndim == 1:
        return a, b
    width = max(a.shape[1], b.shape[1])
    return tuple(np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (a, b))


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(rows,) whether the rows of two tables differ."""
    a, b = _same_width(a, b)
    return (a != b).reshape(len(a), -1).any(axis=1)


def _columns(features: FeaturesConfig) -> dict[str, _Column]:
    """The columns of item_info that the item features need."""
    columns: dict[str, _Column] = {}
    for f in features.item_features:
        if isinstance(f, (CodesFeature, NeighboursFeature)):
            columns[f.source] = EmbeddingFeature(kind="embedding", name=f.source, dim=f.dim)
        else:
            columns[f.name] = f
    return columns


def _read_items(
    path: str | Path, features: FeaturesConfig, columns: dict[str, _Column]
) -> tuple[dict[str, np.ndarray], int]:
    """Each column by item id, and the number of items, padding item 0 included. Raises InputError."""
    files = part_files(path)
    ids, parts = [], {name: [] for name in columns}
    for chunk in read_columns(files, [features.item, *columns]):
        ids.append(chunk[features.item].integers())
        for name, feature in columns.items():
            parts[name].append(_read(chunk[name], feature))
    if not count_rows(files):
        raise InputError(f"{path} has no rows; it must have one row per item.")
    place_of_id = _places(np.concatenate(ids), path, features.item)
    by_item = {}
    for name, feature in columns.items():
        values = _pad_lists(parts[name]) if feature.kind == "tags" else np.concatenate(parts[name])
        values = np.concatenate([values, np.zeros_like(values[:1])])  # where place -1 points: a row 0 not in the file
        by_item[name] = values[place_of_id]
        if by_item[name][0].any():
            raise InputError(f"{path}: item 0 is padding and its {name} is not zero; number items from 1.")
    return by_item, len(place_of_id)


def fingerprint(table: ItemTable) -> str:
    """SHA-256 of the names and contents of arrays."""
    digest = hashlib.sha256()
    for name, values in sorted(table.items()):
        digest.update(f"{name}{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


def _read(column: Column, feature: _Column):
    if feature.kind == "embedding":
        return column.vectors(feature.dim)
    limit = feature.vocab_size if feature.vocab_size is not None else np.iinfo(np.int32).max
    if feature.kind == "tags":
        values, offsets = column.integer_lists()
    else:
        values, offsets = column.integers(), None
    wrong = np.flatnonzero((values < 0) | (values >= limit))
    if wrong.size:
        row = wrong[0] if offsets is None else np.searchsorted(offsets, wrong[0], side="right") - 1
        raise column.refuse(row, f"id {values[wrong[0]]} is outside 0 … {limit - 1}, the feature's vocabulary.")
    return values.astype(np.int32) if offsets is None else (values.astype(np.int32), offsets)


def _places(ids: np.ndarray, path: str | Path, column: str) -> np.ndarray:
    """(V,) row in the file of each item id; -1 for a padding item 0 that the file leaves out."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    if ordered[0] < 0:
        raise InputError(f"{path}: column {column} holds the id {ordered[0]}; item ids must not be negative.")
    twice = np.flatnonzero(np.diff(ordered) == 0)
    if twice.size:
        first, second = order[twice[0]], order[twice[0] + 1]
        raise InputError(f"{path}: item {ordered[twice[0]]} stands in rows {first} and {second}; keep one of them.")
    if ordered[0] != 0:
        ordered, order = np.concatenate([[0], ordered]), np.concatenate([[-1], order])
    gap = np.flatnonzero(ordered != np.arange(len(ordered)))
    if gap.size:
        raise InputError(
            f"{path} has no row for item {gap[0]} (its largest id is {ordered[-1]}); "
            "add the missing items, with empty tags and a zero vector where nothing is known."
        )
    return order


def _pad_lists(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """(rows, L) int32, each list at the left of its row, zeros behind; L is the longest list, at least 1."""
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    padded = np.zeros((len(lengths), max(int(lengths.max()), 1)), np.int32)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = np.concatenate([values for values, _ in parts])
    return padded
