"""Users, items, tags and numbers as the small integers of the prepared files; the items as a table of those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from mmctr_jax.console import log as say
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
    return vocabulary_of(values.drop_nulls().cast(pl.String).to_frame("value").group_by("value").len("count"), least)


def vocabulary_of(counts: pl.DataFrame, least: int) -> pl.DataFrame:
    """`vocabulary` of counted values: columns value and count."""
    counts = counts.filter(pl.col("count") >= least).sort("count", "value", descending=[True, False])
    return counts.select(
        pl.int_range(1, len(counts) + 1, dtype=pl.Int64).alias("id"), "value", pl.col("count").cast(pl.Int64)
    )


def ids_of(values: pl.Series, known: pl.DataFrame) -> np.ndarray:
    """(rows,) int64: the ids of `values` in the vocabulary `known`; 0 for those that it does not have."""
    frame = pl.DataFrame({"value": values.cast(pl.String)})
    joined = frame.join(known.select("value", "id"), on="value", how="left", maintain_order="left")
    return joined["id"].fill_null(0).to_numpy()


def quantile_bounds(values: np.ndarray, bins: int) -> list[float]:
    """The bounds between `bins` levels of equally many values; equal ones leave levels empty. NaN: unknown.

    Empty where no value is known.
    """
    known = values[~np.isnan(values)]
    return np.quantile(known, np.arange(1, bins) / bins).tolist() if len(known) else []


@dataclass(frozen=True)
class Numbers:
    """How a model takes a column of numbers: the settings of a feature of kind numeric, found in the training part."""

    log: bool
    mean: float
    std: float
    boundaries: list[float]

    @property
    def described(self) -> list[object]:
        """For a fingerprint."""
        return [self.log, self.mean, self.std, *self.boundaries]


def numbers_of(values: np.ndarray, bins: int) -> Numbers:
    """Of training's values, NaN where unknown. Logarithms are taken where they are less skewed than the numbers."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Numbers(False, 0.0, 1.0, [])
    logs = np.log1p(np.abs(known)) * np.sign(known)
    log = bool(known.min() >= 0) and abs(_skewness(logs)) < abs(_skewness(known))
    x = logs if log else known
    boundaries = sorted(set(np.float32(quantile_bounds(known, bins)).tolist()))
    return Numbers(log, _rounded(x.mean()), _rounded(x.std()) or 1.0, [_rounded(bound) for bound in boundaries])


def _skewness(x: np.ndarray) -> float:
    deviation = x.std()
    return float((((x - x.mean()) / deviation) ** 3).mean()) if deviation > 0 else 0.0


def _rounded(x: float) -> float:
    """To seven digits, which float32 has: what a config shows."""
    return float(f"{x:.7g}")


def encode_lists(lists: pl.Series, known: pl.DataFrame) -> pl.Series:
    """(n,) lists of ids of the values that the vocabulary has; empty for null."""
    flat = pl.DataFrame({"row": np.arange(len(lists)), "value": lists}).explode("value")
    flat = flat.join(known, on="value", how="inner", maintain_order="left")
    grouped = flat.group_by("row", maintain_order=True).agg("id")
    rows = pl.DataFrame({"row": np.arange(len(lists))}).join(grouped, on="row", how="left", maintain_order="left")
    return rows["id"].fill_null([]).cast(pl.List(pl.Int64))


def levels_of(values: np.ndarray, bounds: list[float]) -> np.ndarray:
    """(n,) int64: levels from 1 by the bounds between them; a value equal to a bound is below it; 0 for NaN."""
    if not bounds:
        return np.zeros(len(values), np.int64)
    return np.where(np.isnan(values), 0, 1 + np.searchsorted(bounds, values, side="left"))


@dataclass(frozen=True)
class EncodedItems:
    """Items 1 … V of the prepared data, with all that their features are made from."""

    features: pl.DataFrame  # V rows: item_id, item, item_title, item_tags (ids), levels, numeric columns
    tags: pl.DataFrame  # their vocabulary
    levels: dict[str, np.ndarray]  # column → (V + 1,) level by item id, 0 for padding
    bounds: dict[str, list[float]]  # column → bounds between its levels
    unknown: int  # items of the log that the source says nothing about
    categories: dict[str, pl.DataFrame] = field(default_factory=dict)  # column → its vocabulary
    numbers: dict[str, Numbers] = field(default_factory=dict)  # column → how a model takes it


@dataclass(frozen=True)
class KnownItems:
    """Items 1 … count of an earlier preparation, and its vocabulary of tags and bounds of levels."""

    features: pl.DataFrame = field(default_factory=pl.DataFrame)  # as `EncodedItems.features`
    tags: pl.DataFrame | None = None
    bounds: dict[str, list[float]] = field(default_factory=dict)
    categories: dict[str, pl.DataFrame] = field(default_factory=dict)
    numbers: dict[str, Numbers] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many they are."""
        return len(self.features)


def vocabulary_after(known: pl.DataFrame | None, values: pl.Series, least: int) -> pl.DataFrame:
    """`vocabulary` of the values, after those of an earlier one."""
    found = vocabulary(values, least)
    if known is None:
        return found
    new = found.filter(~pl.col("value").is_in(known["value"].implode()))
    new = new.with_columns(pl.int_range(1, len(new) + 1, dtype=pl.Int64).alias("id") + len(known))
    return pl.concat([known.select("id", "value", "count"), new])


def respelled(values: pl.Series, known: pl.DataFrame | None) -> pl.Series:
    """The values as text; where an earlier vocabulary has one spelled `5` and not `5.0`, `true` and not `True`, or the
    other way round, as it is spelled there."""
    values = values.cast(pl.String)
    if known is None or not len(values):
        return values
    forms = known.select("value", form=_form(known["value"])).unique("form", keep="none")
    frame = pl.DataFrame({"as_is": values, "form": _form(values)})
    frame = frame.join(forms, on="form", how="left", maintain_order="left")
    theirs = pl.col("as_is").is_in(known["value"].implode())
    return frame.select(pl.when(theirs).then("as_is").otherwise(pl.coalesce("value", "as_is"))).to_series()


def respelled_lists(values: pl.Series, known: pl.DataFrame | None) -> pl.Series:
    """`respelled`, of what stands in lists of text."""
    distinct = values.explode().drop_nulls().unique()
    then = respelled(distinct, known)
    if (distinct == then).all():
        return values
    return values.list.eval(pl.element().replace(distinct.implode(), then.implode()))


def _form(values: pl.Series) -> pl.Series:
    lower = values.str.to_lowercase()
    return pl.select(
        pl.when(lower.is_in(["true", "false"])).then(lower).otherwise(values.str.replace(r"^(-?\d+)\.0+$", "$1"))
    ).to_series()


def _renewed(known: KnownItems, items: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """item_id, and what the table of items now says in these columns, of the items of an earlier preparation."""
    if not known.count:
        return items.head(0).select(pl.lit(0, pl.Int64).alias("item_id"), *names)
    columns = items.select(pl.col("item").cast(pl.String), *names)
    return known.features.select("item_id", "item").join(columns, on="item", how="inner").drop("item")


def _with(features: pl.DataFrame, renewed: pl.DataFrame) -> pl.DataFrame:
    """The features with new values where there are some. Says how many items have others now."""
    names = [name for name in renewed.columns if name != "item_id"]
    if not names or not len(renewed):
        return features
    wider = [name for name in names if renewed[name].dtype.is_float()]  # where all were whole numbers before
    features = features.with_columns(pl.col(wider).cast(pl.Float64))
    renewed = renewed.select("item_id", *(pl.col(name).cast(features[name].dtype) for name in names))
    after = features.update(renewed, on="item_id").sort("item_id")
    changed = {name: int(after[name].ne_missing(features[name]).sum()) for name in names}
    if said := ", ".join(f"{name} of {count:,}" for name, count in changed.items() if count):
        say.info(f"Known items with new values: {said}. Their vectors, texts, tags and levels stay as they were.")
    return after


def encode_items(
    keys: pl.Series,
    item_id: np.ndarray,
    items: pl.DataFrame,
    clicks: np.ndarray,
    training_items: int,
    options: Options,
    known: KnownItems | None = None,
    categories: Sequence[str] = (),
    numbers: Sequence[str] = (),
) -> EncodedItems:
    """The source's table of items, by their numbers. Training items alone decide which tags and levels there are.

    Items of an earlier preparation keep tags, text and levels; their categories and numbers are those of today, where
    the table says some. Its tags, categories and bounds come first.

    Args:
      keys: (n,) the source's item ids.
      item_id: (n,) their numbers; 0 for items that are dropped.
      items: as `Source.items`.
      clicks: (V + 1,) clicks in training, by number.
      training_items: items up to this number are in training.
      known: what an earlier preparation says of items, tags and levels.
      categories, numbers: columns that are features of the items.
    Raises: InputError if `options.levels` names no numeric column.
    """
    items = items.with_columns(pl.col("item").cast(keys.dtype))
    known = known or KnownItems()
    frame = pl.DataFrame({"item_id": item_id, "item": keys}).sort("item_id").filter(pl.col("item_id") > known.count)
    unknown = int((~frame["item"].is_in(items["item"].implode())).sum())
    frame = frame.join(items, on="item", how="left", maintain_order="left")
    training = frame["item_id"].to_numpy() <= training_items
    tags = frame["tags"] if "tags" in frame.columns else pl.Series([None] * len(frame), dtype=pl.List(pl.String))
    texts = frame["text"] if "text" in frame.columns else pl.Series([None] * len(frame), dtype=pl.String)
    tags = respelled_lists(tags.cast(pl.List(pl.String)), known.tags).list.unique(maintain_order=True)
    tag_vocabulary = vocabulary_after(known.tags, tags.filter(training).explode(), options.min_value_count)
    numeric = frame.drop("item_id", "item", "tags", "text", *categories, strict=False)
    renewed = _renewed(known, items, [*categories, *numbers])
    vocabularies, ids, ids_renewed = {}, {}, {}
    for name in categories:
        before = known.categories.get(name)
        values, again = (respelled(values, before) for values in (frame[name], renewed[name]))
        seen = pl.concat([values.filter(training), again])
        vocabularies[name] = vocabulary_after(before, seen, options.min_value_count)
        ids[name], ids_renewed[name] = (ids_of(column, vocabularies[name]) for column in (values, again))
    values_of = {name: numeric[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in numbers}
    found = {name: numbers_of(values[training], options.bins) for name, values in values_of.items()}

    levels, bounds = {}, {}
    for name in options.levels:
        if name == "clicks":
            own = clicks[frame["item_id"].to_numpy()]
            values = np.where(own > 0, own, np.nan).astype(float)  # not clicked in training: unknown
        elif name in numeric.columns:
            values = numeric[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        else:
            there = ", ".join(["clicks", *numeric.columns])
            raise InputError(f"--levels {name}: there is no such numeric item column; there are {there}.")
        bounds[name] = known.bounds[name] if known.count else quantile_bounds(values[training], options.bins)
        before = known.features[f"{name}_level"].to_numpy() if known.count else np.zeros(0, np.int64)
        levels[f"{name}_level"] = np.concatenate([[0], before, levels_of(values, bounds[name])])

    features = pl.DataFrame(
        {
            "item_id": frame["item_id"],
            "item": frame["item"].cast(pl.String),
            "item_title": texts.fill_null(""),
            "item_tags": encode_lists(tags, tag_vocabulary),
            **ids,
            **{name: values[1 + known.count :] for name, values in levels.items()},
            **{name: numeric[name] for name in numeric.columns},
        }
    )
    if known.count:
        with_ids = (pl.Series(name, found).replace(0, None) for name, found in ids_renewed.items())
        features = pl.concat([_with(known.features, renewed.with_columns(with_ids)), features], how="diagonal_relaxed")
    return EncodedItems(features, tag_vocabulary, levels, bounds, unknown, vocabularies, known.numbers or found)
