"""MovieLens (ratings.csv, movies.csv) → train, valid and test in the schema of the challenge.

A rating of 4 or more is a click. A tenth of the users are test, a tenth validation, the rest training. Every click
but a user's first is a sample, its history all earlier clicks (the most recent `HISTORY`); with each come `NEGATIVES`
items that this user never clicks, drawn by popularity^0.75. What is counted (popularity, levels) sees training users
alone; tags and text vectors come from the catalogue, which holds no clicks.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from mmctr_jax.console import log
from mmctr_jax.errors import InputError

HISTORY = 64
NEGATIVES = 1
POPULARITY_POWER = 0.75
LEVELS = 10
TEXT_DIM = 32
SEED = 20242025


def prepare(source: Path, out: Path) -> None:
    """Writes train, valid, test, test_labels and item_info .parquet and tag_vocab.json to the new folder `out`.

    The same source gives the same bytes. Raises InputError if `out` exists or the source is not as expected.
    """
    if out.exists():
        raise InputError(f"Output folder {out} exists; remove it or name another with --out.")
    ratings, movies = _read_csv(source / "ratings.csv", 4), _read_csv(source / "movies.csv", 3)
    try:
        users, movie_ids, stars, times = (np.array(column, float) for column in zip(*ratings, strict=True))
        catalogue = {int(movie): (title, genres) for movie, title, genres in movies}
    except ValueError as error:
        raise InputError(f"{source}: not MovieLens as published: {error}.") from None
    items = {movie: i for i, movie in enumerate(sorted(catalogue), start=1)}  # item ids 1 …; 0 is padding
    unknown = [int(movie) for movie in movie_ids if int(movie) not in items]
    if unknown:
        raise InputError(f"{source / 'ratings.csv'}: movie {unknown[0]} is not in movies.csv.")
    item = np.array([items[int(movie)] for movie in movie_ids])
    order = np.lexsort((item, times, users))
    users, item, stars = users[order].astype(np.int64), item[order], stars[order]

    rng = np.random.Generator(np.random.PCG64(SEED))
    split_of_user = _split_users(np.unique(users), rng)
    in_training = np.isin(users, split_of_user["train"])
    clicks = np.bincount(item[in_training & (stars >= 4)], minlength=len(items) + 1)
    views = np.bincount(item[in_training], minlength=len(items) + 1)
    levels = {"likes_level": _levels(clicks), "views_level": _levels(views)}
    clicked = {user: item[(users == user) & (stars >= 4)] for user in np.unique(users)}

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}_", dir=out.parent))
    try:
        for name, members in split_of_user.items():
            table = _samples({user: clicked[user] for user in members}, clicks, levels, rng)
            if name == "test":
                ids = pa.array(np.arange(table.num_rows))
                labels = pa.table({"ID": ids, "label": table["label"]})
                pq.write_table(labels, temporary / "test_labels.parquet")
                table = table.drop_columns("label").add_column(0, "ID", ids)
            pq.write_table(table, temporary / f"{name}.parquet")
            log.info(f"{name}: {table.num_rows:,} rows")
        _write_items(temporary, [catalogue[movie] for movie in sorted(catalogue)])
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_csv(path: Path, columns: int) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))[1:]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}); --source is the unpacked MovieLens folder.") from None
    for number, row in enumerate(rows, start=2):
        if len(row) != columns:
            raise InputError(f"{path}, line {number}: {len(row)} columns, {columns} expected.")
    return rows


def _split_users(users: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    users, tenth = rng.permutation(users), len(users) // 10
    parts = {"train": users[2 * tenth :], "valid": users[tenth : 2 * tenth], "test": users[:tenth]}
    return {name: np.sort(part) for name, part in parts.items()}


def _levels(counts: np.ndarray) -> np.ndarray:
    """(V,) 1 … LEVELS by rank among the items with a count, 0 (padding) for those without."""
    seen = counts > 0
    bounds = np.quantile(counts[seen], np.arange(1, LEVELS) / LEVELS)
    return np.where(seen, 1 + np.searchsorted(bounds, counts, side="left"), 0)


def _samples(clicked: dict[int, np.ndarray], clicks: np.ndarray, levels: dict, rng: np.random.Generator) -> pa.Table:
    """Each user's positives with their negatives, all shuffled. `clicks` are the items' training clicks."""
    share = clicks**POPULARITY_POWER
    draws = iter(rng.choice(len(share), size=20 * sum(map(len, clicked.values())), p=share / share.sum()))
    rows = []  # user, number of earlier clicks, target, label
    for user, mine in clicked.items():
        taboo = set(mine.tolist())
        for i in range(1, len(mine)):
            rows.append((user, i, mine[i], 1))
            negatives = (candidate for candidate in draws if candidate not in taboo)
            rows += [(user, i, next(negatives), 0) for _ in range(NEGATIVES)]
    rows = np.array(rows)[rng.permutation(len(rows))]
    user, earlier, target, label = rows.T
    histories = [clicked[u][max(n - HISTORY, 0) : n] for u, n in zip(user, earlier, strict=True)]
    return pa.table(
        {
            "user_id": user,
            "item_seq": pa.array(histories, pa.list_(pa.int64())),
            "item_id": target,
            **{name: level[target] for name, level in levels.items()},
            "label": label,
        }
    )


def _write_items(out: Path, catalogue: list[tuple[str, str]]) -> None:
    """item_info.parquet: genres and decade as tags; TF-IDF of title and genres, reduced by SVD, as the vector."""
    tags = []
    for title, genres in catalogue:
        year = re.search(r"\((\d{3})\d\)\s*$", title)
        decade = [f"{year.group(1)}0s"] if year else []
        tags.append([genre for genre in genres.split("|") if genre != "(no genres listed)"] + decade)
    vocabulary = {tag: i for i, tag in enumerate(sorted({tag for mine in tags for tag in mine}), start=1)}
    texts = [re.sub(r"\(\d{4}\)", "", title) + " " + genres.replace("|", " ") for title, genres in catalogue]
    tfidf = TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"[A-Za-z][\w'-]+").fit_transform(texts)
    svd = TruncatedSVD(TEXT_DIM, algorithm="arpack", random_state=SEED)
    vectors = svd.fit_transform(tfidf).astype(np.float32)
    vectors *= np.sign(svd.components_[np.arange(TEXT_DIM), np.abs(svd.components_).argmax(axis=1)])  # sign is free
    table = pa.table(
        {
            "item_id": np.arange(len(catalogue) + 1),
            "item_tags": pa.array([[]] + [[vocabulary[tag] for tag in mine] for mine in tags], pa.list_(pa.int64())),
            f"item_emb_d{TEXT_DIM}": pa.array(
                list(np.concatenate([np.zeros((1, TEXT_DIM), np.float32), vectors])), pa.list_(pa.float32())
            ),
        }
    )
    pq.write_table(table, out / "item_info.parquet")
    (out / "tag_vocab.json").write_text(json.dumps(vocabulary, indent=1) + "\n")
    log.info(f"item_info: {len(catalogue):,} items, {len(vocabulary)} tags, vectors of {TEXT_DIM}")
