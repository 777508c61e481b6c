"""A source's interactions as sorted arrays of small integers: what all later steps work on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmctr_jax.prepare.source import Source


@dataclass(frozen=True)
class Log:
    """R interactions, sorted by user, then time, then place in the source. Users and items are numbered from 0."""

    users: pl.Series  # (U,) the source's ids, in order
    items: pl.Series  # (V,) the source's ids, in order
    user: np.ndarray  # (R,) int32
    item: np.ndarray  # (R,) int32
    time: np.ndarray  # (R,) int64 or float64
    click: np.ndarray  # (R,) bool
    weight: np.ndarray | None  # (R,) float32
    side: dict[str, pl.Series]  # name → (R,) the source's values (`Source.values`)
    numeric: dict[str, np.ndarray]  # name → (R,) float64, NaN where unknown (`Source.numbers`)

    def with_items(self, items: pl.Series) -> Log:
        """The log with items numbered by their place in another list, which has all of them."""
        return replace(self, items=items, item=_codes(self.items.cast(items.dtype), items)[self.item])

    def select(self, rows: np.ndarray) -> Log:
        """The log with these rows alone. rows: (R,) bool."""
        weight = None if self.weight is None else self.weight[rows]
        kept = {name: getattr(self, name)[rows] for name in ("user", "item", "time", "click")}
        side = {name: values.filter(pl.Series(rows)) for name, values in self.side.items()}
        numeric = {name: values[rows] for name, values in self.numeric.items()}
        return replace(self, **kept, weight=weight, side=side, numeric=numeric)


def sorted_log(source: Source) -> tuple[Log, int]:
    """Sorts and numbers a source's interactions; rows that repeat a user, item and time become one.

    Of such rows the first click stays, or the first row where none is a click; it has a label, or is in a second
    history, where one of them has or is.

    Returns: the log, and how many rows it lost.
    """
    frame = source.log
    users, items = in_order(frame["user"].unique()), in_order(frame["item"].unique())
    user, item, time = _codes(frame["user"], users), _codes(frame["item"], items), frame["time"].to_numpy()
    order = np.lexsort((time, user))
    click = frame["click"].to_numpy() if "click" in frame.columns else np.ones(len(frame), bool)
    weight = frame["weight"].to_numpy().astype(np.float32)[order] if "weight" in frame.columns else None
    side = {name: frame[name][order] for name in source.values}
    numeric = {name: frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()[order] for name in source.numbers}
    log = Log(users, items, user[order], item[order], time[order], click[order], weight, side, numeric)
    return _without_repetitions(log)


def all_keys(one: pl.Series, other: pl.Series) -> pl.Series:
    """Two lists of ids as one, in order; as text, where one of them is."""
    if one.dtype != other.dtype:
        one, other = one.cast(pl.String), other.cast(pl.String)
    return in_order(pl.concat([one, other]).unique())


def in_order(ids: pl.Series) -> pl.Series:
    """Numbers first, by their value even where other ids make all of them text; then the others."""
    if ids.dtype != pl.String:
        return ids.sort()
    return pl.DataFrame({"id": ids, "number": whole_number(ids)}).sort("number", "id", nulls_last=True)["id"]


def whole_number(ids: pl.Series) -> pl.Series:
    """The number that text is, if it is a whole one as numbers are written; otherwise null."""
    numbers = ids.cast(pl.Int64, strict=False)
    return pl.select(pl.when(numbers.cast(pl.String) == ids).then(numbers)).to_series()


def _codes(values: pl.Series, known: pl.Series) -> np.ndarray:
    """(rows,) int32: each value's place in `known`."""
    table = pl.DataFrame({"value": known, "code": np.arange(len(known), dtype=np.int32)})
    joined = pl.DataFrame({"value": values}).join(table, on="value", how="left", maintain_order="left")
    return joined["code"].to_numpy()


def _without_repetitions(log: Log) -> tuple[Log, int]:
    same = (np.diff(log.user) == 0) & (np.diff(log.time) == 0)
    tied = np.flatnonzero(np.append(same, False) | np.append(False, same))  # only these can repeat another
    groups = pl.DataFrame(
        {"row": tied, "user": log.user[tied], "time": log.time[tied], "item": log.item[tied], "click": log.click[tied]}
    )
    first, first_click = pl.col("row").min(), pl.col("row").filter("click").min()
    flags = [name for name, values in log.side.items() if values.dtype == pl.Boolean]  # other labels, second histories
    groups = groups.with_columns(log.side[name].gather(tied).alias(f"flag {name}") for name in flags)
    any_of = [pl.col(f"flag {name}").any() for name in flags]
    groups = groups.group_by("user", "time", "item").agg(*any_of, row=pl.coalesce(first_click, first))
    side = dict(log.side)
    for name in flags:  # a view and a purchase in one second are one click that was a purchase
        side[name] = log.side[name].scatter(groups["row"], groups[f"flag {name}"])
    log = replace(log, side=side)
    kept = np.ones(len(log.user), bool)
    kept[tied] = False
    kept[groups["row"].to_numpy()] = True
    return (log if kept.all() else log.select(kept)), int((~kept).sum())
