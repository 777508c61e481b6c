"""Users, items, tags and numbers as the small integers of the prepared files; the items as a table of those."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mmctr_jax.errors import InputError
from mmctr_jax.prepare.options import Options


def numbers_from_one(first: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """(n,) int64: numbers from 1 for what is in `first`, in order, then for what is in `rest`; 0 for neither.

    With the training part as `first`, what appears only later never changes the numbers of what is in training.

    Args:
      first, rest: (n,) bool.
    """
    rest = rest & ~first
    number = np.zeros(len(first), np.int64)
    number[first] = 1 + np.arange(first.sum())
    number[rest] = 1 + first.sum() + np.arange(rest.sum())
    return number


def vocabulary(values: pl.Series, least: int) -> pl.DataFrame:
    """`id` (from 1), `value`, `count` of the values seen at least `least` times, the most frequent first."""
    counts = values.drop_nulls().cast(pl.String).to_frame("value").group_by("value").len("count")
    counts = counts.filter(pl.col("count") >= least).sort("count", "value", descending=[True, False])
    return counts.select(
        pl.int_range(1, len(counts) + 1, dtype=pl.Int64).alias("id"), "value", pl.col("count").cast(pl.Int64)
    )


def ids_of(values: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """(rows,) int64: the ids of `values` in the vocabulary `known`; 0 for those that it does not have."""
    frame = pl.DataFrame({"value": values.cast(pl.String)})
    joined = frame.join(known.select("value", "id"), on="value", how="left", maintain_order="left")
    return joined["id"].fill_null(0).to_numpy()


def quantile_levels(values: np.ndarray, training: np.ndarray, bins: int) -> tuple[np.ndarray, list[float]]:
    """Levels 1 … bins by the quantiles of the training items' values, and the bins − 1 bounds between them.

    A value equal to a bound is below it. Equal quantiles leave levels empty.

    Args:
      values: (n,) float, NaN where unknown.
      training: (n,) bool, the items whose quantiles count.
    Returns: (n,) int64, 0 for unknown values; and the bounds, empty where no training item has a value.
    """
    known = values[training & ~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), np.int64), []
    bounds = np.quantile(known, np.arange(1, bins) / bins)
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(bounds, values, side="left")), bounds.tolist()


@dataclass(frozen=True)
class EncodedItems:
    """Items 1 … V of the prepared data, with all that their features are made from."""

    features: pl.DataFrame  # V rows: item_id, item, item_title, item_tags (ids), levels, numeric columns
    tags: pl.DataFrame  # their vocabulary
    levels: dict[str, np.ndarray]  # column → (V + 1,) level by item id, 0 for padding
    bounds: dict[str, list[float]]  # column → bounds between its levels
    unknown: int  # items of the log that the source says nothing about


def encode_items(
    keys: pl.Series, item_id: np.ndarray, items: pl.DataFrame, clicks: np.ndarray, training_items: int, options: Options
) -> EncodedItems:
    """The source's table of items, by their numbers. Training items alone decide which tags and levels there are.

    Args:
      keys: (n,) the source's item ids.
      item_id: (n,) their numbers; 0 for items that are dropped.
      items: as `Source.items`.
      clicks: (V + 1,) clicks in training, by number.
      training_items: items up to this number are in training.
    Raises: InputError if `options.levels` names no numeric column.
    """
    items = items.with_columns(pl.col("item").cast(keys.dtype))
    frame = pl.DataFrame({"item_id": item_id, "item": keys}).filter(pl.col("item_id") > 0).sort("item_id")
    frame = frame.join(items.with_columns(_known=True), on="item", how="left", maintain_order="left")
    training = frame["item_id"].to_numpy() <= training_items
    tags = frame["tags"] if "tags" in frame.columns else pl.Series([None] * len(frame), dtype=pl.List(pl.String))
    texts = frame["text"] if "text" in frame.columns else pl.Series([None] * len(frame), dtype=pl.String)
    tags = tags.cast(pl.List(pl.String)).list.unique(maintain_order=True)
    tag_vocabulary = vocabulary(tags.filter(training).explode(), options.min_value_count)
    numeric = frame.drop("item_id", "item", "tags", "text", "_known", strict=False)

    levels, bounds = {}, {}
    for name in options.levels:
        if name == "clicks":
            values = np.where(clicks[1:] > 0, clicks[1:], np.nan).astype(float)  # not clicked in training: unknown
        elif name in numeric.columns:
            values = numeric[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        else:
            known = ", ".join(["clicks", *numeric.columns])
            raise InputError(f"--levels {name}: there is no such numeric item column; there are {known}.")
        by_item, bounds[name] = quantile_levels(values, training, options.bins)
        levels[f"{name}_level"] = np.concatenate([[0], by_item])

    features = pl.DataFrame(
        {
            "item_id": frame["item_id"],
            "item": frame["item"].cast(pl.String),
            "item_title": texts.fill_null(""),
            "item_tags": _encode_lists(tags, tag_vocabulary),
            **{name: values[1:] for name, values in levels.items()},
            **{name: numeric[name] for name in numeric.columns},
        }
    )
    unknown = len(frame) - int(frame["_known"].fill_null(False).sum())
    return EncodedItems(features, tag_vocabulary, levels, bounds, unknown)


def _encode_lists(lists: pl.Series, known: pl.DataFrame) -> pl.Series:
    """(n,) lists of ids of the values that the vocabulary has; empty for null."""
    flat = pl.DataFrame({"row": np.arange(len(lists)), "value": lists}).explode("value")
    flat = flat.join(known, on="value", how="inner", maintain_order="left")
    grouped = flat.group_by("row", maintain_order=True).agg("id")
    rows = pl.DataFrame({"row": np.arange(len(lists))}).join(grouped, on="row", how="left", maintain_order="left")
    return rows["id"].fill_null([]).cast(pl.List(pl.Int64))
