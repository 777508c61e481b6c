"""A log with every kind of column, through the commands: what nobody named is proposed, and each value is the log's."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from benchmarks.shop import PREPARE, write_shop
from mmctr_jax.commands import predict as predict_command
from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.commands import train as train_command
from mmctr_jax.config import load_config, yaml
from mmctr_jax.errors import InputError
from mmctr_jax.features import lists
from mmctr_jax.hashing import hash_id
from mmctr_jax.prepare import folder, interactions, proposals
from mmctr_jax.prepare.columns import Columns
from mmctr_jax.prepare.encoding import numbers_of
from mmctr_jax.training.data import load_training_data

SMALL = ["train.epochs=1", "train.batch_size=256", "model.embedding_dim=4", "model.deep=[8]", "train.length_buckets=[]"]


def prepare(folder: Path, day: int, *more: str) -> Path:
    out = folder / f"shop{day}"
    arguments = ["interactions", folder / f"day{day}.csv", "--items", folder / "items.csv"]
    arguments += ["--split", "user", "--out", out, *more]
    assert prepare_command.main([str(argument) for argument in arguments]) == 0
    return out


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder, users=80, days=3, shown=20, items=60)
    prepare(folder, 1, *PREPARE, "--hash", "city=50")
    return folder


def vocabulary(folder: Path, name: str) -> dict[int, str | None]:
    rows = pl.read_parquet(folder / "vocabularies" / f"{name}.parquet").select("id", "value").iter_rows()
    return {0: None, **dict(rows)}


def test_every_column_is_given_a_kind_with_its_reason(shop):
    manifest = json.loads((shop / "shop1" / "manifest.json").read_text())
    columns = manifest["columns"]
    assert columns["side"] == ["device"] and columns["numeric"] == ["budget"] and columns["lists"] == ["interests"]
    assert columns["hashed"] == {"city": 50} and columns["histories"] == {"buy": "action"}
    assert columns["clicks"] == {"action": "categorical", "gap": "numeric"}
    assert columns["item_side"] == ["category", "brand"] and columns["item_numeric"] == ["price"]
    assert columns["item_lists"] == ["labels"] and columns["item_texts"] == ["name"]
    text = (shop / "shop1" / "shop1.yaml").read_text()
    assert "  labels: {liked: 0.3}" in text and pq.read_schema(shop / "shop1" / "test_labels.parquet").names[3:] == [
        "label",
        "liked",
    ]
    assert '{name: "device", vocab_size: 3} # proposed: 2 different values' in text
    assert "action" not in manifest["reasons"]  # it was named


def test_each_value_is_the_logs(shop):
    folder, log = shop / "shop1", pl.read_csv(shop / "day1.csv", schema_overrides={"budget": pl.Float64})
    items = {row["item"]: row for row in pl.read_csv(shop / "items.csv").iter_rows(named=True)}
    names = {name: vocabulary(folder, name) for name in ("user_id", "item_id", "device", "interests", "click_action")}
    by_user: dict[str, list[dict]] = {}
    for row in log.iter_rows(named=True):
        by_user.setdefault(row["user"], []).append(row | {"at": datetime.fromisoformat(row["time"]).timestamp()})
    frame = pl.concat([pl.read_parquet(folder / f"{split}.parquet") for split in ("train", "valid")])
    seen = {"bought": 0, "gaps": 0, "unknown budgets": 0}
    for row in frame.iter_rows(named=True):
        mine, target = by_user[names["user_id"][row["user_id"]]], names["item_id"][row["item_id"]]
        clicks, skipped = ([r for r in mine if bool(r["clicked"]) is clicked] for clicked in (True, False))
        found = [
            r
            for r in mine
            if r["item"] == target
            and r["clicked"] == row["label"]
            and [c["item"] for c in clicks if c["at"] < r["at"]] == [names["item_id"][i] for i in row["item_seq"]]
            and [s["item"] for s in skipped if s["at"] < r["at"]]
            == [names["item_id"][i] for i in row["item_seq_skipped"]]
        ]
        assert found
        now = found[0]
        past = [c for c in clicks if c["at"] < now["at"]]
        assert names["device"][row["device"]] == now["device"] and row["city"] == now["city"]
        assert {names["interests"][i] for i in row["interests"]} == set(now["interests"].split("|"))
        assert row["budget"] == (None if now["budget"] is None else np.float32(now["budget"]))
        assert [names["click_action"][a] for a in row["click_action"]] == [c["action"] for c in past]
        if len(found) == 1:
            np.testing.assert_allclose(row["click_gap"], [now["at"] - c["at"] for c in past])
        assert row["liked"] == now["liked"] or len(found) > 1
        bought = [c["item"] for c in mine if c["action"] == "buy" and c["at"] < now["at"]]
        assert [names["item_id"][i] for i in row["item_seq_buy"]] == bought
        seen["bought"] += bool(bought)
        seen["gaps"] += len(past)
        seen["unknown budgets"] += row["budget"] is None
    assert all(count > 10 for count in seen.values()), seen
    category, brand = vocabulary(folder, "category"), vocabulary(folder, "brand")
    info = pq.read_table(folder / "item_info.parquet").to_pylist()
    assert info[0] == {"item_id": 0, "item_tags": [], "category": 0, "brand": 0, "price": None}
    for row in info[1:]:
        of_item = items[names["item_id"][row["item_id"]]]
        assert (category[row["category"]], brand[row["brand"]]) == (of_item["category"], of_item["brand"])
        assert row["price"] == of_item["price"]


def test_the_config_reads_its_own_files(shop):
    data = load_training_data(load_config(shop / "shop1" / "shop1.yaml", [f"data.cache_dir={shop / 'cache'}"]))
    assert set(data.train.side) >= {"device", "budget", "interests", "city", "item_seq_buy", "clicks_level"}
    assert set(data.train.clicks) == {"click_action", "click_gap"}
    assert set(np.unique(data.train.side["city"])) <= {hash_id(f"city {i}", 50) for i in range(12)}


@pytest.mark.slow
def test_three_days(shop):
    cache = f"data.cache_dir={shop / 'cache'}"
    previous = None
    for day in (1, 2, 3):
        folder = shop / "shop1" if day == 1 else prepare(shop, day, "--like", str(shop / f"run{day - 1}"))
        assert 0 < pl.read_parquet(folder / "train.parquet")["label"].mean() < 0.5  # the label is remembered, too
        manifest = json.loads((folder / "manifest.json").read_text())
        kept = {name: manifest[name] for name in ("columns", "numbers")}
        assert previous in (None, kept)
        previous = kept
        arguments = ["--config", folder / f"shop{day}.yaml", *SMALL, cache, "--run-dir", shop / f"run{day}"]
        arguments += ["--init-from", shop / f"run{day - 1}"] if day > 1 else []
        assert train_command.main([str(argument) for argument in arguments]) == 0
    assert predict_command.main(["--ckpt", str(shop / "run3"), "--original-ids"]) == 0
    scores = pl.read_parquet(shop / "run3" / "predictions.parquet")
    assert scores["score_liked"].is_between(0, 1).all() and not scores["score_liked"].equals(scores["score"])
    assert scores["item_id"].str.starts_with("i").all() and scores["score"].is_finite().all()


KINDS = [
    ([1, 2, 3] * 40, "side"),
    ([i * i for i in range(120)], "numeric"),
    ([0.5, 1.5, None] * 40, "numeric"),
    (["1.5", "2.25", "x"] * 40, "side"),
    (["12.5", "3", "9"] * 40, "numeric"),
    ([[1, 2], []] * 60, "lists"),
    (["a|b", "c"] * 60, "lists"),
    (['["a", "b"]', "[]"] * 60, "lists"),
    ([f"name {i}" for i in range(120)], None),
    (["same"] * 120, None),
    ([None] * 120, None),
    ([[0.5], [1.5]] * 60, None),
    ([f"word{i % 30}" for i in range(120)], "side"),
    ([True, False] * 60, "side"),
    ([datetime(2026, 1, 1 + i % 20) for i in range(120)], None),
    ([f"2026-01-{1 + i % 20:02} 10:00" for i in range(120)], None),
    ([[]] * 120, None),
    (list(range(1000, 1120)), None),
    ([i * i for i in range(10_000)], None),
    ([f"{i % 60:05}" for i in range(120)], "side"),
    ([f"${i % 60}.99" for i in range(120)], None),
    ([f"1,{i % 60:03}.50" for i in range(120)], None),
    ([f"{i % 60} %" for i in range(120)], None),
    ([f"{i % 60},5 €" for i in range(120)], None),
    ([f"{i % 60} cm" for i in range(120)], "side"),
    ([f"({i % 60}.50)" for i in range(120)], None),
    ([1.0, float("inf")] * 60, None),
    ([1.0, float("nan"), 2.0] * 60, "side"),
    ([2.0**60, 2.0**61] * 60, "numeric"),
]


@pytest.mark.parametrize(("values", "kind"), KINDS, ids=[str(v[0])[:20] for v, _ in KINDS])
def test_a_column_is_known_by_its_values(values, kind):
    found = proposals.of_rows(pl.Series(values), None)
    assert found.kind == kind and found.reason


def test_amounts_of_items_are_no_text_and_their_plain_form_is_asked_for():
    found = proposals.of_items(pl.Series([f"€ {i}.50" for i in range(120)]))
    assert found.kind is None and found.reason == "amounts such as '€ 0.50'; write plain numbers"
    assert proposals.of_items(pl.Series(["", *(f"${i}.50" for i in range(120))])).kind is None
    assert proposals.of_items(pl.Series([f"{i:05}" for i in range(120)])).kind == "text"  # as before: codes
    found = proposals.of_rows(pl.Series([f"{i % 60},5" for i in range(120)]), None)
    assert found.kind is None and found.reason == "amounts such as '0,5'; write plain numbers, or say --decimal ','"


def test_vectors_of_fixed_width_are_left_out():
    found = proposals.of_items(pl.Series([[0.5, 1.5]] * 120, dtype=pl.Array(pl.Float32, 2)))
    assert found.kind is None and found.reason == "lists of Float32"


@pytest.mark.parametrize("values", [["1.0", "0.0"], ["yes", "no"], [1.0, None, 0.0], [0.25, 0.5], [True, False]])
def test_a_label_in_other_words_that_nobody_named_is_asked_for(tmp_path, values):
    log = {"user": [1, 2] * 3, "item": [3, 4] * 3, "time": range(6), "clicked": (values * 3)[:6]}
    pl.DataFrame(log).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="say --label clicked if it says"):
        proposals.with_proposals(tmp_path / "log.parquet", None, Columns(ignore=()))


def test_a_column_of_some_part_files_is_told_of(tmp_path, capsys):
    (tmp_path / "log").mkdir()
    log = pl.DataFrame({"user": [1, 2], "item": [3, 4], "time": [5, 6]})
    log.with_columns(device=pl.lit("phone")).write_parquet(tmp_path / "log" / "a.parquet")
    log.write_parquet(tmp_path / "log" / "b.parquet")
    proposals.with_proposals(tmp_path / "log", None, Columns(ignore=()))
    assert "Left out: column device" in capsys.readouterr().out
    with pytest.raises(InputError, match="only some of its files have a column 'device'"):
        interactions.read(tmp_path / "log", None, Columns(side=("device",)))
    (tmp_path / "log" / ".hoodie").mkdir()
    with pytest.raises(InputError, match="is a Hudi table"):
        interactions.read(tmp_path / "log", None, Columns())


def test_labels_of_any_name_are_read_again():
    for name in ("a: b", "#x", "null", "1e3", "2020-01-01", "*"):
        text = folder._flow({"label": 1.0, name: 0.3})
        assert yaml.parse(text, "c.yaml") == {"label": 1.0, name: 0.3}


def test_a_column_that_gives_the_label_away_is_left_out(tmp_path, capsys):
    rng = np.random.default_rng(0)
    label = pl.Series(rng.random(2000) < 0.3)
    dwell = pl.Series(np.where(label, rng.gamma(5, 10, 2000), rng.gamma(1, 2, 2000)))
    assert proposals.of_rows(dwell, label).kind is None and "AUC" in proposals.of_rows(dwell, label).reason
    assert proposals.of_rows(pl.Series(rng.normal(size=2000)), label).kind == "numeric"
    bought = label & pl.Series(rng.random(2000) < 0.2)  # a purchase: rare, and with a click alone
    for after in (bought.cast(pl.Int64), bought.cast(pl.Float64) * 9.5, pl.Series([[1] if b else [] for b in bought])):
        assert proposals.of_rows(after, label).kind is None
    assert proposals.of_rows(pl.Series(["none" if not c else "buy" for c in label]), label).kind is None
    assert proposals.of_rows(pl.Series(rng.integers(0, 3, 2000)), label).kind == "side"


def test_ignored_columns_and_wrong_options(shop, tmp_path):
    rest = ["interactions", str(shop / "day1.csv"), "--items", str(shop / "items.csv"), "--label", "clicked"]
    rest += ["--split", "user"]
    assert prepare_command.main([*rest, "--ignore", "*", "--out", str(tmp_path / "none")]) == 0
    columns = json.loads((tmp_path / "none" / "manifest.json").read_text())["columns"]
    assert columns.pop("label") == ["clicked"] and not any(columns.values())
    for arguments, sentence in (
        (["--side", "clicked"], "it is the label or the weight"),
        (["--ignore", "actoin"], "--ignore actoin: there is no such column"),
        (["--labels", "liked=0"], "--labels liked=0: give what its logloss counts"),
        (["--hash", "city=1"], "--hash city=1: give the number of ids"),
        (["--histories", "action=sold"], "no row of column action is 'sold'"),
        (["--item-side", "colour"], "has no column 'colour'"),
        (["--click-features", "mood"], "has no column 'mood'"),
        (["--like", str(shop / "shop1"), "--side", "action"], "--side must be as in --like"),
    ):
        with pytest.raises(InputError, match=sentence):
            prepare_command.main([*rest, *arguments, "--out", str(tmp_path / "no")])
        assert not (tmp_path / "no").exists()


def test_a_purchase_in_the_second_of_its_view_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    rows = [(u, int(i), 10 * t, "view", 0) for u in range(20) for t, i in enumerate(rng.permutation(30)[:8])]
    bought = [(u, i, t, "buy", 1) for u, i, t, _, _ in rows if i % 3 == 0]
    frame = pl.DataFrame(rows + bought, ["user", "item", "time", "action", "bought"], orient="row")
    frame.write_csv(tmp_path / "log.csv")
    arguments = ["interactions", str(tmp_path / "log.csv"), "--negatives", "1", "--labels", "bought=1"]
    assert prepare_command.main([*arguments, "--histories", "action=buy", "--out", str(tmp_path / "out")]) == 0
    names = vocabulary(tmp_path / "out", "item_id")
    train = pl.read_parquet(tmp_path / "out" / "train.parquet")
    for row in train.iter_rows(named=True):
        assert row["item_seq_buy"] == [i for i in row["item_seq"] if int(names[i]) % 3 == 0]
        assert row["bought"] == (row["label"] and int(names[row["item_id"]]) % 3 == 0)
    assert train["bought"].sum() > 10


def test_a_label_that_nobody_named_is_asked_for(shop, tmp_path):
    with pytest.raises(InputError, match="has a column 'clicked' of values from 0 to 1; say --label clicked"):
        prepare_command.main(["interactions", str(shop / "day1.csv"), "--out", str(tmp_path / "no")])


def test_whole_numbers_beside_nulls_and_nan_are_taken(tmp_path):
    rng = np.random.default_rng(0)
    log = {"user": rng.integers(0, 20, 300), "item": rng.integers(0, 30, 300), "time": np.arange(300)}
    more = {"hour": [None if i % 9 == 0 else float(i % 24) for i in range(300)], "x": rng.normal(size=300)}
    more["x"][::7] = np.nan
    pl.DataFrame(log | more, strict=False).write_parquet(tmp_path / "log.parquet")
    arguments = ["interactions", str(tmp_path / "log.parquet"), "--negatives", "1", "--out", str(tmp_path / "out")]
    assert prepare_command.main(arguments) == 0
    assert vocabulary(tmp_path / "out", "hour")[1] in {str(i) for i in range(24)}
    assert pl.read_parquet(tmp_path / "out" / "train.parquet")["x"].null_count() > 0


def test_statistics_are_of_training_and_logarithms_where_they_help():
    rng = np.random.default_rng(0)
    prices = rng.lognormal(3, 1, 5000)
    found = numbers_of(np.append(prices, np.nan), 10)
    assert found.log and found.mean == pytest.approx(np.log1p(prices).mean(), rel=1e-5)
    assert found.std == pytest.approx(np.log1p(prices).std(), rel=1e-5)
    shares = np.searchsorted(np.sort(prices), found.boundaries) / len(prices)
    np.testing.assert_allclose(shares, np.arange(1, 10) / 10, atol=1e-3)
    heights = numbers_of(rng.normal(170, 10, 5000), 4)
    assert not heights.log and heights.mean == pytest.approx(170, abs=1)
    assert numbers_of(np.array([np.nan]), 4) == numbers_of(np.array([]), 4)
    assert numbers_of(np.array([3.0, 3.0]), 4).std == 1.0


def test_an_item_with_very_many_tags_keeps_them_and_the_others_stay_short(tmp_path):
    write_shop(tmp_path, users=80, days=1, shown=20, items=60)
    items = pl.read_csv(tmp_path / "items.csv")
    many = (
        pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("|".join(f"tag{i}" for i in range(400)))).otherwise("labels")
    )
    items.with_columns(labels=many).write_csv(tmp_path / "items.csv")
    folder = prepare(tmp_path, 1, *PREPARE)
    table = load_training_data(load_config(folder / "shop1.yaml", [f"data.cache_dir={tmp_path / 'cache'}"])).items.table
    whole = pl.read_parquet(folder / "item_info.parquet").sort("item_id")["item_tags"]
    assert whole.list.len().max() == 400 and table["item_tags"].shape[1] < 10
    ids, offsets = lists.of(table, "item_tags")
    assert [ids[a:b].tolist() for a, b in zip(offsets, offsets[1:], strict=False)] == whole.to_list()
