"""What is known of a row before its label: the features whose power over the label, and between splits, is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from mmctr_jax.features import ItemFeature
from mmctr_jax.pages import bins
from mmctr_jax.pages.inspect.folder import Folder
from mmctr_jax.pages.inspect.rows import Rows

SAMPLE = 200_000  # rows a split, at most, for what is too slow on all of them
SEED = 20242025
BINS = 32  # at most, for a numeric feature

ITEM, USER, CLICKS = "target item", "user", "target's clicks in a half of train"
LENGTH, IN_HISTORY = "history length", "target in its own history"


@dataclass(frozen=True)
class Feature:
    """One value per row and split: of all rows, or of the sample's."""

    name: str
    values: dict[str, np.ndarray]
    numeric: bool  # ordered, so that near values may share a bin
    sampled: bool = False
    between_splits: bool = True  # may tell splits apart; ids may not: they are new by their nature

    def codes(self) -> dict[str, np.ndarray]:
        """Split → small integers: a value of training, or its quantile bin, is 1, 2, …; 0 is any other."""
        binned = bins.by_value(self.values["train"], BINS if self.numeric else np.inf, self.numeric)
        return {name: binned.place(values) + 1 for name, values in self.values.items()}


def first_half(rows: int) -> np.ndarray:
    """(rows,) bool: a random half of a split's rows. What is learned of the rows of one is learned from the other."""
    return np.random.default_rng(SEED).random(rows) < 0.5


def samples(rows: Rows) -> dict[str, np.ndarray]:
    """Split → the sample's row indices, ascending."""
    rng = np.random.default_rng(SEED)
    return {name: np.sort(rng.choice(len(r), min(len(r), SAMPLE), replace=False)) for name, r in rows.items()}


def row_features(folder: Folder, rows: Rows, sample: dict[str, np.ndarray]) -> list[Feature]:
    """All features of the rows, but for their order in the file."""

    def of_rows(name: str, column: str, numeric: bool = False, between_splits: bool = True) -> Feature:
        values = {split: r[column].to_numpy() for split, r in rows.items()}
        return Feature(name, values, numeric, between_splits=between_splits)

    features = []
    for name in folder.side:
        values = {split: s.side[name] for split, s in folder.splits.items()}
        features.append(Feature(name, values, numeric=np.issubdtype(values["train"].dtype, np.floating)))
    features.append(of_rows(ITEM, "item", between_splits=False))
    if folder.users:
        features.append(of_rows(USER, "user", between_splits=False))
    features.append(Feature(CLICKS, _clicks(rows, folder.features.num_items), numeric=True))
    of_target = (_item_feature(f, f.of(folder.items), rows, sample) for f in folder.features.item_features)
    features += [feature for feature in of_target if feature]
    return [*features, of_rows(LENGTH, "length", numeric=True), of_rows(IN_HISTORY, "in_history")]


def _item_feature(f: ItemFeature, values: Any, rows: Rows, sample: dict[str, np.ndarray]) -> Feature | None:
    """What the target's `values`, by item, say of a row; of vectors, the cosine with its history."""
    if f.is_vector:
        cosines = {name: _cosines(r[sample[name]], values) for name, r in rows.items()}
        return Feature(f"cosine with history: {f.name}", cosines, numeric=True, sampled=True)
    if (said := f.of_target(values)) is None:
        return None
    name, of_item, numeric = said
    return Feature(name, {split: of_item[r["item"]] for split, r in rows.items()}, numeric)


def _clicks(rows: Rows, num_items: int) -> dict[str, np.ndarray]:
    """Positive rows with the same target in the half of training in which the row is not; other splits have halves too.

    Leaving out just the row itself would give it away: one click less than its item has, and its label is 1.
    """
    item, positive = rows["train"]["item"].to_numpy(), rows["train"]["label"].to_numpy() == 1
    half = first_half(len(item))
    others = [np.bincount(item[positive & (half == side)], minlength=num_items) for side in (False, True)]
    return {name: np.where(first_half(len(r)), *(clicks[r["item"]] for clicks in others)) for name, r in rows.items()}


def _cosines(rows: pl.DataFrame, vectors_VxD: np.ndarray) -> np.ndarray:
    """(rows,) float32 cosine between the target's vector and the mean of its history's; NaN where one is zero."""
    histories = rows["history"].to_arrow()
    clicks = np.ones(len(histories.values), np.float32), histories.values.to_numpy(), histories.offsets.to_numpy()
    sums = csr_array(clicks, shape=(len(rows), len(vectors_VxD))) @ vectors_VxD
    targets = vectors_VxD[rows["item"]]
    norms = np.linalg.norm(sums, axis=1) * np.linalg.norm(targets, axis=1)
    dots = np.einsum("bd,bd->b", sums, targets)
    return np.divide(dots, norms, out=np.full(len(rows), np.nan, np.float32), where=norms > 0)
