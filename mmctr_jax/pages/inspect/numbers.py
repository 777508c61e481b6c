"""A folder → all numbers of the page. What is not defined is None."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from mmctr_jax.console import log
from mmctr_jax.data.lengths import default_lengths
from mmctr_jax.features.summaries import IdSummary, VectorSummary
from mmctr_jax.formats import count, decimal, one_digit, percent, shown
from mmctr_jax.pages import bins
from mmctr_jax.pages.inspect.drift import Drift, drift
from mmctr_jax.pages.inspect.folder import Folder
from mmctr_jax.pages.inspect.label_auc import LabelAuc, label_aucs
from mmctr_jax.pages.inspect.row_features import SAMPLE, SEED, row_features, samples
from mmctr_jax.pages.inspect.rows import OwnHistory, Repeats, Rows, in_own_history, is_known, read_rows, repeats

_LENGTHS = (8, 16, 32, 64, 128)  # to which padding is reckoned
_POINTS = 60  # of the popularity curve
_VALUES = 30  # of a side feature, shown


@dataclass(frozen=True)
class Sample:
    """Rows drawn at random, for what is too slow on all of them."""

    at_most: int
    seed: int
    rows: dict[str, int]  # by split


@dataclass(frozen=True)
class SplitFacts:
    """What concerns users is None where they are not known. What is unseen is a share."""

    rows: int = shown("rows", count)
    label_mean: float | None = shown("label mean", decimal)
    items: int = shown("items as target", count)
    items_in_histories: int = shown("items in histories", count)
    unseen_items: float = shown("target items unseen in train", percent)
    unseen_item_rows: float = shown("rows with such a target", percent)
    users: int | None = shown("users", count)
    rows_per_user: float | None = shown("rows a user", one_digit)
    unseen_users: float | None = shown("users unseen in train", percent)
    unseen_user_rows: float | None = shown("rows with such a user", percent)


@dataclass(frozen=True)
class LengthBin:
    """Rows whose history is longer than the bin before has it, and at most `up_to` clicks long."""

    up_to: int
    rows: int


@dataclass(frozen=True)
class LengthFacts:
    """Of a split's histories."""

    mean: float = shown("mean", one_digit)
    p50: float = shown("median", one_digit)
    p90: float = shown("90 % are up to", one_digit)
    p99: float = shown("99 % are up to", one_digit)
    max: int = shown("longest", count)
    empty: float = shown("empty", percent)
    bins: list[LengthBin]  # 0, 1, 2, 3–4, 5–8, 9–16, …


@dataclass(frozen=True)
class PaddingFacts:
    """If the histories of train are padded to `length`."""

    length: int = shown("padded to", count)
    configured: bool = shown("in the config", lambda configured: "yes" if configured else "")
    cut: float = shown("histories cut", percent)
    padding: float = shown("padding", percent)
    bucketed: float = shown("with buckets", percent)


@dataclass(frozen=True)
class CurvePoint:
    """Clicks of the item at a rank by clicks, and rows of the one at that rank by rows."""

    rank: int = shown("rank", count)
    clicks: int = shown("clicks (label 1)", count)
    rows: int = shown("rows as target", count)


@dataclass(frozen=True)
class Popularity:
    """Of the items in train; clicks are rows of label 1."""

    items: int
    clicks: int
    without_click: int
    top_1_percent: float  # of the items: their share of the clicks
    top_10_percent: float
    curve: list[CurvePoint]  # clicks and rows by target, each sorted by itself, at ranks even on a log scale


@dataclass(frozen=True)
class ValueRows:
    """Rows of a split with some value of a side feature."""

    rows: int
    label_mean: float | None


@dataclass(frozen=True)
class ValueFacts:
    """One value of a side feature."""

    value: int | str = shown("value", str)  # a text: a range of floats
    name: str | None = shown("name", lambda name: name or "")
    splits: dict[str, ValueRows]


@dataclass(frozen=True)
class SideFeature:
    """Its values against the label."""

    feature: str
    distinct: int
    values: list[ValueFacts]  # the most frequent ones in train


@dataclass(frozen=True)
class Constant:
    """A column that has one value in a whole split."""

    split: str
    column: str
    value: int | float


@dataclass(frozen=True)
class Inspection:
    """What the page shows and, besides warnings, inspect.json holds; dictionaries are by split."""

    name: str
    sample: Sample
    splits: dict[str, SplitFacts]
    histories: dict[str, LengthFacts]
    padding: list[PaddingFacts]
    popularity: Popularity
    levels: list[SideFeature]
    label_auc: list[LabelAuc]
    drift: dict[str, Drift]
    target_in_history: dict[str, OwnHistory]
    repeats: Repeats
    embeddings: list[VectorSummary]
    tags: list[IdSummary]
    constant: list[Constant]


def measure(folder: Folder) -> Inspection:
    """Every number of the page."""
    rows = {name: read_rows(split, folder.users.get(name)) for name, split in folder.splits.items()}
    sample = samples(rows)
    features = row_features(folder, rows, sample)
    log.info("Predicting the label from single features ...")
    summaries = [f.summarise(f.of(folder.items), folder.names[f.name]) for f in folder.features.item_features]
    found = Inspection(
        name=folder.name,
        sample=Sample(SAMPLE, SEED, {name: len(s) for name, s in sample.items()}),
        splits=_splits(folder, rows),
        histories={name: _lengths(r["length"]) for name, r in rows.items()},
        padding=_padding(rows["train"]["length"].to_numpy(), folder.max_history),
        popularity=_popularity(rows["train"], folder.features.num_items),
        levels=[_levels(folder, rows, name) for name in folder.side],
        label_auc=label_aucs(features, rows, sample),
        drift=drift(features, rows, sample),
        target_in_history={name: in_own_history(r) for name, r in rows.items()},
        repeats=repeats(rows),
        embeddings=[s for s in summaries if isinstance(s, VectorSummary)],
        tags=[s for s in summaries if isinstance(s, IdSummary)],
        constant=_constant(folder),
    )
    return rounded(found)


def rounded(value: Any) -> Any:
    """Floats of six digits, and None for what is not finite: what JSON holds."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, list):
        return [rounded(v) for v in value]
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if is_dataclass(value):
        return replace(value, **{f.name: rounded(getattr(value, f.name)) for f in fields(value)})
    return value


def _splits(folder: Folder, rows: Rows) -> dict[str, SplitFacts]:
    clicked = {name: pl.Series(split.history_values).unique() for name, split in folder.splits.items()}
    seen_items = pl.concat([clicked["train"], rows["train"]["item"].unique()])
    seen_users = rows["train"]["user"].unique()
    found = {}
    for name, r in rows.items():
        items, *unseen_items = _unseen(r["item"], seen_items)
        users, *unseen_users = _unseen(r["user"], seen_users) if is_known(r["user"]) else (None, None, None)
        facts = len(r), r["label"].mean(), items, len(clicked[name]), *unseen_items
        found[name] = SplitFacts(*facts, users, users and len(r) / users, *unseen_users)
    return found


def _unseen(column: pl.Series, seen: pl.Series) -> tuple[int, float, float]:
    """Different values; the share of them that are not among those seen, and the share of rows that have such a one."""
    new = column.filter(~column.is_in(seen.implode()))
    return column.n_unique(), new.n_unique() / column.n_unique(), len(new) / len(column)


def _lengths(length: pl.Series) -> LengthFacts:
    ends = bins.doubling(length.max())
    rows = np.bincount(np.searchsorted(ends, length), minlength=len(ends)).tolist()
    quantiles = (length.quantile(q, "linear") for q in (0.5, 0.9, 0.99))
    by_bin = [LengthBin(*each) for each in zip(ends, rows, strict=True)]
    return LengthFacts(length.mean(), *quantiles, length.max(), (length == 0).mean(), by_bin)


def _padding(length: np.ndarray, max_history: int | None) -> list[PaddingFacts]:
    longest = max(int(length.max()), 1)
    found = []
    for n in sorted({*(n for n in _LENGTHS if n < longest), longest, max_history or longest}):
        kept, positions = np.minimum(length, n), len(length) * n
        buckets = np.array(default_lengths(n))
        bucketed = int(buckets[np.searchsorted(buckets, kept)].sum())
        shares = float((length > n).mean()), 1 - int(kept.sum()) / positions, bucketed / positions
        found.append(PaddingFacts(n, n == max_history, *shares))
    return found


def _popularity(train: pl.DataFrame, num_items: int) -> Popularity:
    items = train["item"], train.filter(pl.col("label") == 1)["item"]
    targets, clicks = (-np.sort(-np.bincount(x, minlength=num_items)[1:]) for x in items)
    ranks = np.unique(np.geomspace(1, len(clicks), _POINTS).round().astype(int))
    top = [float(clicks[: math.ceil(share * len(clicks))].sum() / max(clicks.sum(), 1)) for share in (0.01, 0.1)]
    curve = [CurvePoint(int(r), int(clicks[r - 1]), int(targets[r - 1])) for r in ranks]
    return Popularity(len(clicks), int(clicks.sum()), int((clicks == 0).sum()), *top, curve)


def _levels(folder: Folder, rows: Rows, feature: str) -> SideFeature:
    binned = bins.by_value(folder.splits["train"].side[feature], _VALUES)
    levels = [ValueFacts(value, folder.names[feature].get(value), {}) for value in binned.names]
    for split, r in rows.items():
        place = pl.Series(binned.place(folder.splits[split].side[feature]))
        facts = {i: of_value for i, *of_value in r.group_by(place).agg(pl.len(), pl.col("label").mean()).iter_rows()}
        for i, level in enumerate(levels):
            level.splits[split] = ValueRows(*facts.get(i, (0, None)))
    return SideFeature(feature, len(levels) + binned.left_out, levels)


def _constant(folder: Folder) -> list[Constant]:
    """Side features and labels."""
    found = []
    for name, split in folder.splits.items():
        columns = {side: split.side[side] for side in folder.side} | {folder.features.label: split.label}
        for column, values in columns.items():
            if values is not None and (values == values[0]).all():
                found.append(Constant(name, column, values[0].item()))
    return found
