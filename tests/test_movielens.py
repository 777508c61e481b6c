"""The demo's data: what the schema asks, the same each time, and no look at what is to be predicted."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mmctr_jax.errors import InputError
from mmctr_jax.prepare import movielens

SOURCE = Path(__file__).parents[1] / "data" / "ml-latest-small"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    out = tmp_path_factory.mktemp("movielens") / "out"
    movielens.prepare(SOURCE, out)
    return out


@pytest.fixture(scope="module")
def clicks():
    """User → clicked movies in time order, read with nothing of ours; item ids follow the order of movie ids."""
    with open(SOURCE / "movies.csv", encoding="utf-8") as stream:
        ids = sorted(int(row["movieId"]) for row in csv.DictReader(stream))
    item = {movie: i for i, movie in enumerate(ids, start=1)}
    by_user = {}
    with open(SOURCE / "ratings.csv", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if float(row["rating"]) >= 4:
                entry = int(row["timestamp"]), item[int(row["movieId"])]
                by_user.setdefault(int(row["userId"]), []).append(entry)
    return {user: [i for _, i in sorted(entries)] for user, entries in by_user.items()}


def read(prepared, name):
    table = pq.read_table(prepared / f"{name}.parquet")
    if name == "test":
        labels = pq.read_table(prepared / "test_labels.parquet")
        assert labels["ID"].equals(table["ID"])
        table = table.append_column("label", labels["label"])
    return table


def test_the_shipped_data_is_as_published():
    published = {
        "README.txt": "63d22ac138e80fae37021797ed8e1b9424b5239dc576a137422adf783ae3f404",
        "links.csv": "97ad18e4e56a09363c65676b6cb3482ce3e2cea2372a24620c1599c843325f31",
        "movies.csv": "5a5f32dd9bb3797b8e728a1b98958789d2b13f294a69fdfbc5727f8a9611aa07",
        "ratings.csv": "aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
    }
    assert {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in SOURCE.iterdir()} == published


def test_users_are_split_and_every_click_but_the_first_is_a_sample(prepared, clicks):
    users = {name: set(read(prepared, name)["user_id"].to_pylist()) for name in ("train", "valid", "test")}
    assert not (users["train"] & users["valid"] or users["train"] & users["test"] or users["valid"] & users["test"])
    assert set.union(*users.values()) == {user for user, mine in clicks.items() if len(mine) > 1}
    for name in users:
        table = read(prepared, name)
        positives = [
            r for r in zip(*(table[c].to_pylist() for c in ("user_id", "item_id", "label")), strict=True) if r[2] == 1
        ]
        expected = [(u, i, 1) for u in users[name] for i in clicks[u][1:]]
        assert sorted(positives) == sorted(expected)


def test_histories_hold_earlier_clicks_alone_and_negatives_are_never_clicked(prepared, clicks):
    for name in ("train", "valid", "test"):
        table = read(prepared, name)
        assert table["label"].to_numpy().mean() == 0.5
        earlier = {u: {tuple(mine[max(i - 64, 0) : i]) for i in range(1, len(mine))} for u, mine in clicks.items()}
        columns = (table[c].to_pylist() for c in ("user_id", "item_seq", "item_id", "label"))
        for user, history, item, label in zip(*columns, strict=True):
            if label:
                at = clicks[user].index(item)  # a movie is rated once
                assert history == clicks[user][max(at - 64, 0) : at]
            else:
                assert item not in clicks[user] and tuple(history) in earlier[user]


def test_levels_see_training_users_alone(prepared, clicks):
    train = read(prepared, "train")
    users = set(train["user_id"].to_pylist())
    counts = np.zeros(10_000, int)
    for user, mine in clicks.items():
        if user in users:
            np.add.at(counts, mine, 1)
    test = read(prepared, "test")
    item, level = test["item_id"].to_numpy(), test["likes_level"].to_numpy()
    assert ((level == 0) == (counts[item] == 0)).all() and level.max() == 10
    order = np.argsort(counts[item], kind="stable")
    assert (np.diff(level[order]) >= 0).all()


def test_the_same_source_gives_the_same_bytes(prepared, tmp_path):
    movielens.prepare(SOURCE, tmp_path / "again")
    digest = lambda folder: {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}  # noqa: E731
    assert digest(prepared) == digest(tmp_path / "again")


def test_what_is_refused(prepared, tmp_path):
    with pytest.raises(InputError, match="exists"):
        movielens.prepare(SOURCE, prepared)
    with pytest.raises(InputError, match="ratings.csv cannot be read"):
        movielens.prepare(tmp_path, tmp_path / "out")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3\n")
    with pytest.raises(InputError, match="line 2: 3 columns, 4 expected"):
        movielens.prepare(tmp_path, tmp_path / "out")
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,4.5,9\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n3,A (1999),Drama\n")
    with pytest.raises(InputError, match="movie 2 is not in movies.csv"):
        movielens.prepare(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
