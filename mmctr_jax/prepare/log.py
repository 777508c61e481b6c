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
    items: pl.Series  # (V,) likewise: those of the log and of the item file
    user: np.ndarray  # (R,) int32
    item: np.ndarray  # (R,) int32
    time: np.ndarray  # (R,) int64 or float64
    click: np.ndarray  # (R,) bool
    weight: np.ndarray | None  # (R,) float32
    side: dict[str, pl.Series]  # name → (R,) the source's values

    def select(self, rows: np.ndarray) -> Log:
        """The log with these rows alone (a mask)."""
        weight = None if self.weight is None else self.weight[rows]
        kept = {name: getattr(self, name)[rows] for name in ("user", "item", "time", "click")}
        side = {name: values.filter(pl.Series(rows)) for name, values in self.side.items()}
        return replace(self, **kept, weight=weight, side=side)


def sorted_log(source: Source) -> tuple[Log, int]:
    """The log, and how many rows it lost: such as repeat a user, item and time are one, a click if any of them is."""
    frame = source.log
    users = frame["user"].unique().sort()
    keys, more = frame["item"], source.items["item"]
    if keys.dtype != more.dtype:
        keys, more = keys.cast(pl.String), more.cast(pl.String)
    items = pl.concat([keys.unique(), more]).unique().sort()
    user, item, time = _codes(frame["user"], users), _codes(keys, items), frame["time"].to_numpy()
    order = np.lexsort((time, user))
    click = frame["click"].to_numpy() if "click" in frame.columns else np.ones(len(frame), bool)
    weight = frame["weight"].to_numpy().astype(np.float32)[order] if "weight" in frame.columns else None
    side = {name: frame[name][order] for name in source.side}
    log = Log(users, items, user[order], item[order], time[order], click[order], weight, side)
    return _without_repetitions(log)


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
    groups = groups.group_by("user", "time", "item").agg(pl.col("row").min(), pl.col("click").any(), pl.len())
    repeated = groups.filter(pl.col("len") > 1)
    if not len(repeated):
        return log, 0
    kept = np.ones(len(log.user), bool)
    kept[tied] = False
    kept[groups["row"].to_numpy()] = True
    click = log.click.copy()
    click[repeated["row"].to_numpy()] = repeated["click"].to_numpy()
    return replace(log, click=click).select(kept), int((~kept).sum())
