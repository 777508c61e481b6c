"""MovieLens as published: ratings.csv and movies.csv."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from mmctr_jax.prepare.raw_tables import read_table
from mmctr_jax.prepare.raw_values import as_keys, as_numbers, as_times, refuse_duplicates
from mmctr_jax.prepare.source import Source, SourceKind

CLICK = 4.0  # stars
_NO_GENRES = "(no genres listed)"


def read(folder: Path) -> Source:
    """Reads the published files.

    A rating of 4 stars or more is a click, a lower one a non-click. Genres and decade are tags; title and genres are
    the text.

    Raises: InputError if the files are not as published.
    """
    ratings, movies = folder / "ratings.csv", folder / "movies.csv"
    names = {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"}
    log = read_table(ratings, names)
    stars = as_numbers(log["rating"], ratings, "rating")
    log = pl.DataFrame(
        {
            "user": as_keys(log["user"], ratings, "userId"),
            "item": as_keys(log["item"], ratings, "movieId"),
            "time": as_times(log["time"], ratings, "timestamp"),
            "click": stars >= CLICK,
        }
    )
    items = read_table(movies, {"item": "movieId", "title": "title", "genres": "genres"})
    keys = as_keys(items["item"], movies, "movieId")
    refuse_duplicates(keys, movies, "movieId")
    genres = pl.col("genres").fill_null("").replace(_NO_GENRES, "")
    decade = pl.col("title").str.extract(r"\((\d{3})\d\)\s*$")
    plain_title = pl.col("title").str.replace_all(r"\(\d{4}\)", "").str.strip_chars()
    items = items.with_columns(keys).select(
        "item",
        tags=pl.concat_list(genres.str.split("|"), pl.concat_str(decade, pl.lit("0s"))).list.eval(
            pl.element().filter(pl.element().fill_null("") != "")
        ),
        text=pl.concat_str(plain_title, pl.lit(" "), genres.str.replace_all("|", " ", literal=True)).str.strip_chars(),
    )
    return Source(log, items, [ratings, movies], compared=(ratings, movies))


KIND = SourceKind(
    help="ratings.csv and movies.csv; 4 stars or more is a click",
    read=lambda args: read(args.path),
    split="user",
)
