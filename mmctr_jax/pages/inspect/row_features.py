"""What is known of a row before its label: the features whose power over the label, and between splits, is measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from mmctr_jax.features import ItemFeature
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

    def of_sample(self, split: str, sample: dict[str, np.ndarray]) -> np.ndarray:
        """(sample,) values."""
        return self.values[split] if self.sampled else self.values[split][sample[split]]

    def codes(self) -> dict[str, np.ndarray]:
        """Split → small integers: a value of training, or its quantile bin, is 1, 2, …; 0 is any other."""
        train = self.values["train"]
        known = np.unique(train[~np.isnan(train)])
        if self.numeric and len(known) > BINS:
            known = np.unique(np.nanquantile(train, np.arange(BINS) / BINS))
        codes = {}
        for name, values in self.values.items():
            place = np.maximum(np.searchsorted(known, values, side="right"), 1)
            fits = ~np.isnan(values) if self.numeric else known[place - 1] == values
            codes[name] = np.where(fits, place, 0)
        return codes


def first_half(rows: int) -> np.ndarray:
    """(rows,) bool: a random half of a split's rows. What is learned of the rows of one is learned from the other."""
    return np.random.default_rng(SEED).random(rows) < 0.5


def samples(rows: dict[str, Rows]) -> dict[str, np.ndarray]:
    """Split → the sample's row indices, ascending."""
    rng = np.random.default_rng(SEED)
    return {name: np.sort(rng.choice(len(r), min(len(r), SAMPLE), replace=False)) for name, r in rows.items()}


def row_features(folder: Folder, rows: dict[str, Rows], sample: dict[str, np.ndarray]) -> list[Feature]:
    """All features of the rows, but for their order in the file."""
    features = [
        Feature(side.name, {name: r.split.side[side.name] for name, r in rows.items()}, numeric=False)
        for side in folder.features.side
    ]
    features.append(Feature(ITEM, {n: r.split.item for n, r in rows.items()}, numeric=False, between_splits=False))
    if folder.users:
        features.append(Feature(USER, folder.users, numeric=False, between_splits=False))
    features.append(Feature(CLICKS, _clicks(rows, folder.num_items), numeric=True))
    features += [_item_feature(f, folder.items[f.name], rows, sample) for f in folder.features.item_features]
    features.append(Feature(LENGTH, {name: r.length for name, r in rows.items()}, numeric=True))
    features.append(Feature(IN_HISTORY, {name: r.in_history for name, r in rows.items()}, numeric=False))
    return features


def _item_feature(f: ItemFeature, table: np.ndarray, rows: dict[str, Rows], sample: dict[str, np.ndarray]) -> Feature:
    """What the target's values, by item in `table`, say of a row; of vectors, the cosine with its history."""
    if f.is_vector:
        cosines = {name: _cosines(r, sample[name], table) for name, r in rows.items()}
        return Feature(f"cosine with history: {f.name}", cosines, numeric=True, sampled=True)
    label, of_item, numeric = f.of_target(table)
    return Feature(label, {name: of_item[r.split.item] for name, r in rows.items()}, numeric)


def _clicks(rows: dict[str, Rows], num_items: int) -> dict[str, np.ndarray]:
    """Positive rows with the same target in the half of training in which the row is not; other splits have halves too.

    Leaving out just the row itself would give it away: one click less than its item has, and its label is 1.
    """
    train = rows["train"].split
    positive, half = train.label == 1, first_half(len(train.item))
    others = [np.bincount(train.item[positive & (half == side)], minlength=num_items) for side in (True, False)]
    return {name: np.where(first_half(len(r)), *(c[r.split.item] for c in others[::-1])) for name, r in rows.items()}


def _cosines(rows: Rows, sample: np.ndarray, vectors_VxD: np.ndarray) -> np.ndarray:
    """(sample,) float32 cosine between the target's vector and the mean of its history's; NaN where one is zero."""
    items, offsets = rows.histories(sample)
    ones = np.ones(len(items), np.float32)
    sums = csr_array((ones, items, offsets), shape=(len(sample), len(vectors_VxD))) @ vectors_VxD
    targets = vectors_VxD[rows.split.item[sample]]
    norms = np.linalg.norm(sums, axis=1) * np.linalg.norm(targets, axis=1)
    dots = np.einsum("bd,bd->b", sums, targets)
    return np.divide(dots, norms, out=np.full(len(sample), np.nan, np.float32), where=norms > 0)
