"""MicroLens as published: pairs, titles, likes and views."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mmctr_jax.errors import InputError
from mmctr_jax.prepare.raw_tables import (
    as_keys,
    as_numbers,
    as_times,
    collect,
    column_names,
    refuse_duplicates,
    scan,
)
from mmctr_jax.prepare.source import Source, SourceKind

_TAG_WORDS = 6  # a hashtag runs on to the next one; words beyond so many are no longer part of it
_NOTE = (
    "Likes and views carry no date: they were counted after the clicks, so likes_level and views_level hold some "
    "knowledge of the future of every sample. Prepare with --levels clicks to do without."
)


def read(folder: Path) -> Source:
    """Reads the published files.

    Clicks are in `*_pairs.csv` (with timestamps) or else `*_pairs.tsv` (each user's videos in order), titles in
    `*_titles.csv`, whose #hashtags are tags, and numbers in `*_likes_and_views.txt`.

    Raises: InputError if a file is missing or not as published.
    """
    with_times = sorted(folder.glob("*_pairs.csv"))
    pairs = with_times[0] if with_times else _file(folder, "_pairs.tsv")
    titles, counts = _file(folder, "_titles.csv"), _file(folder, "_likes_and_views.txt")
    log = _read_timed(pairs) if with_times else _read_ordered(pairs)
    items = collect(scan(titles, {"item": "item", "text": "title"}), titles)
    items = items.with_columns(as_keys(items["item"], titles, "item"))
    numbers = collect(scan(counts, {n: n for n in ("item", "likes", "views")}, ["item", "likes", "views"]), counts)
    numbers = pl.DataFrame(
        {
            "item": as_keys(numbers["item"], counts, "item", first_line=1),
            **{name: as_numbers(numbers[name], counts, name, first_line=1) for name in ("likes", "views")},
        }
    )
    refuse_duplicates(items["item"], titles, "item")
    refuse_duplicates(numbers["item"], counts, "item", first_line=1)
    if items["item"].dtype != numbers["item"].dtype:
        items, numbers = (frame.with_columns(pl.col("item").cast(pl.String)) for frame in (items, numbers))
    items = items.join(numbers, on="item", how="full", coalesce=True, maintain_order="left_right")
    items = items.with_columns(tags=_hashtags(pl.col("text").fill_null("")))
    return Source(log, items, [pairs, titles, counts], notes=[_NOTE], has_times=bool(with_times))


def _file(folder: Path, ending: str) -> Path:
    found = sorted(folder.glob(f"*{ending}"))
    if not found:
        raise InputError(f"{folder} has no file *{ending}; give the folder of the published MicroLens files.")
    return found[0]


def _read_timed(path: Path) -> pl.DataFrame:
    """Columns user, video and timestamp, by whatever name, in this order."""
    columns = column_names(path)
    if len(columns) < 3:
        raise InputError(f"{path} has the columns {', '.join(columns)}; user, video and timestamp are expected.")
    frame = collect(scan(path, dict(zip(("user", "item", "time"), columns, strict=False))), path)
    return pl.DataFrame(
        {
            "user": as_keys(frame["user"], path, columns[0]),
            "item": as_keys(frame["item"], path, columns[1]),
            "time": as_times(frame["time"], path, columns[2]),
        }
    )


def _read_ordered(path: Path) -> pl.DataFrame:
    """Lines of user, tab, videos separated by spaces, oldest first; `time` is the place in the line."""
    frame = collect(scan(path, {"user": "user", "items": "items"}, ["user", "items"]), path)
    users = as_keys(frame["user"], path, "user", first_line=1)
    twice = ~users.is_first_distinct()
    if twice.any():
        raise InputError(
            f"{path}, line {twice.arg_true()[0] + 1}: user {users.filter(twice)[0]} has a line already; join them."
        )
    if frame["items"].null_count():
        raise InputError(f"{path}, line {frame['items'].is_null().arg_true()[0] + 1}: no videos; drop such lines.")
    lists = frame.select(users, items=pl.col("items").str.split(" ").list.eval(pl.element().filter(pl.element() != "")))
    lists = lists.with_columns(time=pl.int_ranges(pl.col("items").list.len()))
    log = lists.explode("items", "time")
    return log.select("user", as_keys(log["items"], path, "items").alias("item"), "time")


def _hashtags(text: pl.Expr) -> pl.Expr:
    """Lists of tags: lower case, letters and digits, the first _TAG_WORDS words of each."""
    words = pl.element().str.to_lowercase().str.extract_all(r"[\p{L}\p{M}\p{N}]+").list.head(_TAG_WORDS).list.join(" ")
    return text.str.extract_all(r"#[^#]+").list.eval(words).list.eval(pl.element().filter(pl.element() != ""))


KIND = SourceKind(
    help="the published MicroLens files",
    read=lambda args: read(args.path),
    split="last",
    levels=("likes", "views"),
)
