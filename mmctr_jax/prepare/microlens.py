"""MicroLens as published: pairs, titles, likes and views."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mmctr_jax.errors import InputError
from mmctr_jax.prepare.raw_tables import column_names, read_table
from mmctr_jax.prepare.raw_values import NO_HEADER, as_keys, as_numbers, as_times, refuse_duplicates, refuse_row
from mmctr_jax.prepare.source import Source, SourceKind
from mmctr_jax.prepare.text_files import TextFormat

_TAG_WORDS = 6  # a hashtag runs on to the next one; words beyond so many are no longer part of it
_USER, _TIME = ("user", "user_id", "userid", "uid"), ("timestamp", "time", "ts")  # as published first
_ITEM = ("item", "item_id", "itemid", "video", "video_id", "videoid", "vid")
_TITLES = ("_titles.csv", "_title_en.csv", "_titles_en.csv", "_title.csv")
_NOTE = (
    "Likes and views carry no date: they were counted after the clicks, so likes_level and views_level hold some "
    "knowledge of the future of every sample. Prepare with --levels clicks to do without."
)


def read(folder: Path) -> Source:
    """Reads the published files.

    Clicks are in `*_pairs.csv` (with timestamps) or else `*_pairs.tsv` (each user's videos in order), titles in
    `*_titles.csv` or `*_title_en.csv`, whose #hashtags are tags, and numbers in `*_likes_and_views.txt`.

    Raises: InputError if a file is missing or not as published, or if the folder holds files of several releases.
    """
    _refuse_mixed(folder)
    with_times = sorted(folder.glob("*_pairs.csv"))
    pairs = with_times[0] if with_times else _file(folder, "_pairs.tsv")
    titles, counts = _file(folder, *_TITLES), _file(folder, "_likes_and_views.txt")
    log = _read_timed(pairs) if with_times else _read_ordered(pairs)
    items, text = _read_titles(titles)
    names = ["item", "likes", "views"]
    numbers = read_table(counts, {n: n for n in names}, NO_HEADER, names)
    numbers = pl.DataFrame(
        {
            "item": as_keys(numbers["item"], counts, "item", NO_HEADER),
            **{name: as_numbers(numbers[name], counts, name, text=NO_HEADER) for name in ("likes", "views")},
        }
    )
    refuse_duplicates(items["item"], titles, "item", text)
    refuse_duplicates(numbers["item"], counts, "item", NO_HEADER)
    if items["item"].dtype != numbers["item"].dtype:
        items, numbers = (frame.with_columns(pl.col("item").cast(pl.String)) for frame in (items, numbers))
    items = items.join(numbers, on="item", how="full", coalesce=True, maintain_order="left_right")
    items = items.with_columns(tags=_hashtags(pl.col("text").fill_null("")))
    return Source(
        log, items, [pairs, titles, counts], notes=[_NOTE], has_times=bool(with_times), compared=(pairs, titles)
    )


def _file(folder: Path, *endings: str) -> Path:
    found = [file for ending in endings for file in sorted(folder.glob(f"*{ending}"))]
    if not found:
        either = " or ".join(f"*{ending}" for ending in endings)
        raise InputError(f"{folder} has no file {either}; give the folder of the published MicroLens files.")
    return found[0]


def _refuse_mixed(folder: Path) -> None:
    """Raises: InputError if files of several releases, such as 50k and 100k, stand together: their ids differ."""
    endings = ("_pairs.csv", "_pairs.tsv", "_likes_and_views.txt", *_TITLES)
    found = {p.name.removesuffix(ending) for ending in endings for p in folder.glob(f"*{ending}")}
    if len(found) > 1:
        raise InputError(
            f"{folder} holds files of several releases ({', '.join(sorted(found))}), whose ids differ; "
            "keep one of them there."
        )


def _read_titles(path: Path) -> tuple[pl.DataFrame, TextFormat]:
    """Columns item and text; with a header line in some releases, without one in others."""
    first = column_names(path)
    has_header = first[0].strip().lower() in _ITEM
    if len(first) != 2:
        raise InputError(
            f"{path} has {len(first)} columns, and item and title are expected; put quotes around titles with commas."
        )
    text = TextFormat(header=has_header, null_words=())
    names = dict(zip(("item", "text"), first if has_header else ("column_1", "column_2"), strict=True))
    items = read_table(path, names, text)
    return items.with_columns(as_keys(items["item"], path, "item", text)), text


def _read_timed(path: Path) -> pl.DataFrame:
    """Columns user, item and timestamp, by these names or others of the same meaning."""
    present = column_names(path)
    exact = {name.strip().lower(): name for name in present}
    found = [
        [exact[names[0]]] if names[0] in exact else [name for name in present if name.strip().lower() in names]
        for names in (_USER, _ITEM, _TIME)
    ]
    if any(len(names) != 1 for names in found):
        raise InputError(
            f"{path} has the columns {', '.join(present)}; a header with user, item and timestamp is expected."
        )
    columns = [name for (name,) in found]
    frame = read_table(path, dict(zip(("user", "item", "time"), columns, strict=True)))
    return pl.DataFrame(
        {
            "user": as_keys(frame["user"], path, columns[0]),
            "item": as_keys(frame["item"], path, columns[1]),
            "time": as_times(frame["time"], path, columns[2]),
        }
    )


def _read_ordered(path: Path) -> pl.DataFrame:
    """Lines of user, tab, videos separated by spaces, oldest first; `time` is the place in the line."""
    frame = read_table(path, {"user": "user", "items": "items"}, NO_HEADER, ["user", "items"])
    users = as_keys(frame["user"], path, "user", NO_HEADER)
    twice = ~users.is_first_distinct()
    if twice.any():
        problem = f"user {users.filter(twice)[0]} has a line already; join them."
        raise refuse_row(path, "user", twice.arg_true()[0], problem, NO_HEADER)
    if frame["items"].null_count():
        raise refuse_row(
            path, "items", frame["items"].is_null().arg_true()[0], "no videos; drop such lines.", NO_HEADER
        )
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
