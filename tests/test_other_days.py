"""A later day's files that look otherwise: spelled, priced, timed or named unlike the first day's."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.errors import InputError

FIRST = ["--side", "size,weekend", "--numeric", "spent", "--click-features", "act,gap", "--histories", "act=2"]
FIRST += ["--lists", "likes", "--item-side", "brand", "--item-numeric", "price", "--ignore", "*"]


def log(seed: int, **changes) -> pl.DataFrame:
    rng, rows = np.random.default_rng(seed), 600
    frame = pl.DataFrame(
        {
            "user": rng.integers(0, 40, rows),
            "item": rng.integers(1, 31, rows),
            "time": 1_790_000_000 + 86_400 * seed + np.arange(rows) * 60,
            "size": rng.integers(5, 8, rows),
            "weekend": rng.random(rows) < 0.5,
            "spent": rng.gamma(2, 5, rows).round(2),
            "act": rng.integers(1, 3, rows),
            "likes": [[f"l{i}" for i in rng.integers(0, 6, rng.integers(1, 4))] for _ in range(rows)],
        }
    )
    return frame.with_columns(**changes)


def items(count: int = 30, **changes) -> pl.DataFrame:
    ids = list(range(1, count + 1))
    frame = {"item": ids, "brand": [f"b{i % 4}" for i in ids], "price": [float(i) + 0.5 for i in ids]}
    return pl.DataFrame(frame | changes)


def prepare(
    folder: Path, name: str, frame: pl.DataFrame, table: pl.DataFrame, *more: str, negatives: str = "1"
) -> Path:
    frame.write_parquet(folder / f"{name}.parquet")
    table.write_parquet(folder / f"{name}_items.parquet")
    arguments = ["interactions", folder / f"{name}.parquet", "--items", folder / f"{name}_items.parquet", *more]
    arguments += ["--negatives", negatives, "--out", folder / name]
    assert prepare_command.main([str(argument) for argument in arguments]) == 0
    return folder / name


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> Path:
    return prepare(tmp_path_factory.mktemp("days"), "first", log(1), items(), *FIRST)


def decoded(folder: Path, name: str, feature: str) -> pl.Series:
    values = pl.read_parquet(folder / "vocabularies" / f"{feature}.parquet").select("id", "value")
    ids = pl.read_parquet(folder / f"{name}.parquet").select(pl.col(feature).cast(pl.Int64).alias("id"))
    return ids.join(values, on="id", how="left", maintain_order="left")["value"]


def test_the_same_values_spelled_otherwise_are_the_same(first, tmp_path, capsys):
    as_written = {"size": pl.col("size").cast(pl.Float64).cast(pl.String), "act": pl.col("act").cast(pl.Float64)}
    as_written["weekend"] = pl.col("weekend").cast(pl.String).str.to_titlecase()
    plain = prepare(tmp_path, "plain", log(2), items(), "--like", str(first))
    other = prepare(tmp_path, "other", log(2, **as_written), items(), "--like", str(first))
    for split in ("train", "valid", "test"):
        assert pl.read_parquet(plain / f"{split}.parquet").equals(pl.read_parquet(other / f"{split}.parquet"))
    assert set(decoded(other, "train", "size")) == {"5", "6", "7"}
    assert set(decoded(other, "train", "weekend")) == {"true", "false"}
    assert "are new, such as" not in capsys.readouterr().out


def test_new_values_are_counted(first, tmp_path, capsys):
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit(99)).otherwise("size")
    out = prepare(tmp_path, "day", log(2, size=half), items(), "--like", str(first))
    assert "50.0% of the values of size are new, such as '99'" in capsys.readouterr().out
    assert decoded(out, "train", "size").null_count() > 100


def test_known_items_have_todays_price_and_brand_and_old_ones_where_nothing_is_said(first, tmp_path, capsys):
    table = items(31, price=[None, 100.25] + [float(i) + 0.5 for i in range(3, 32)])
    table = table.with_columns(brand=pl.when(pl.col("item") == 3).then(pl.lit("new")).otherwise("brand"))
    out = prepare(tmp_path, "day", log(2), table, "--like", str(first))
    assert "Known items with new values: brand of 1, price of 1." in capsys.readouterr().out
    features = pl.read_parquet(out / "item_feature.parquet").with_columns(pl.col("item").cast(pl.Int64)).sort("item")
    assert features["price"].to_list()[:3] == [1.5, 100.25, 3.5]
    brands = dict(pl.read_parquet(out / "vocabularies" / "brand.parquet").select("id", "value").iter_rows())
    assert [brands[i] for i in features["brand"]][:4] == ["b1", "b2", "new", "b0"]
    before = dict(pl.read_parquet(first / "vocabularies" / "brand.parquet").select("id", "value").iter_rows())
    assert brands == before | {5: "new"}
    info = pl.read_parquet(out / "item_info.parquet").join(features, on="item_id", how="inner")
    assert info["price"].equals(info["price_right"]) and info["brand"].equals(info["brand_right"])


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        (pl.from_epoch("time"), "times were numbers there and are not here"),
        (pl.col("time") * 1000, "times are 1.79.*e.12 here and were 1.79.*e.09 there, as in another unit"),
    ],
    ids=["dates", "milliseconds"],
)
def test_times_of_another_unit_are_refused_where_gaps_are_a_feature(first, tmp_path, times, problem):
    with pytest.raises(InputError, match=problem):
        prepare(tmp_path, "day", log(2, time=times), items(), "--like", str(first))
    assert not (tmp_path / "day").exists()


@pytest.mark.parametrize("name", ["user", "item"])
def test_ids_written_otherwise_are_refused_or_told_of(first, tmp_path, capsys, name):
    written = pl.col(name).cast(pl.Float64).cast(pl.String)
    table = items().with_columns(item=written) if name == "item" else items()
    with pytest.raises(InputError, match=rf"No {name} of this log is known to --like .*decimals of a whole number"):
        prepare(tmp_path, "day", log(2, **{name: written}), table, "--like", str(first))
    assert not (tmp_path / "day").exists()
    some = pl.when(pl.col(name) == 7).then(pl.lit("007")).otherwise(pl.col(name).cast(pl.String))
    table = items().with_columns(item=some) if name == "item" else items()
    prepare(tmp_path, "some", log(2, **{name: some}), table, "--like", str(first))
    assert f"{name}s are new, and some are known ones written otherwise" in capsys.readouterr().out


def test_a_day_has_click_rates_where_the_first_day_had_them(first, tmp_path):
    shown = log(1).with_columns(label=pl.Series(np.arange(600) % 3 != 0))
    whole = prepare(tmp_path, "whole", shown, items(), "--label", "label", "--ignore", "*", negatives="logged")
    clicks = shown.with_columns(label=True)
    with pytest.raises(InputError, match="rows there have click rates, .* give a log that has some"):
        prepare(tmp_path, "day", clicks, items(), "--label", "label", "--like", str(whole))
    again = prepare(tmp_path, "again", shown, items(), "--label", "label", "--like", str(whole), negatives="logged")
    assert pl.read_parquet(again / "train.parquet").equals(pl.read_parquet(whole / "train.parquet"))
    later = prepare(tmp_path, "later", log(2), items(), *FIRST, "--like", str(first))
    assert "earlier_rows" not in pl.read_parquet(later / "train.parquet").columns


@pytest.mark.parametrize("chosen, least", [((), 0), (("--min-history", "1"), 1)])
def test_a_day_has_samples_of_users_who_never_clicked_if_the_first_day_had_them(tmp_path, chosen, least):
    def shown(seed: int) -> pl.DataFrame:
        return log(seed).with_columns(label=pl.Series(np.random.default_rng(seed).random(600) < 0.3))

    def shortest(folder: Path) -> int:
        return min(
            pl.read_parquet(folder / f"{name}.parquet")["item_seq"].list.len().min() for name in ("train", "test")
        )

    one = prepare(tmp_path, "one", shown(1), items(), *FIRST, "--label", "label", *chosen, negatives="logged")
    two = prepare(tmp_path, "two", shown(2), items(), "--label", "label", "--like", str(one), negatives="logged")
    for folder in (one, two):
        assert json.loads((folder / "manifest.json").read_text())["options"]["min_history"] == least
        assert shortest(folder) == least


def test_a_day_without_a_second_history_or_long_lists(first, tmp_path):
    short = pl.Series([["l1"]] * 600)
    out = prepare(tmp_path, "day", log(2, act=pl.lit(1), likes=short), items(), "--like", str(first))
    assert pl.read_parquet(out / "train.parquet")["item_seq_2"].list.len().max() == 0
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (first, out)]
    assert manifests[0]["side"] == manifests[1]["side"] and manifests[0]["clicks"] == manifests[1]["clicks"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--bins", "7"], "--bins must be as in --like .*: --bins 10"),
        (["--click-features", "act"], "--click-features must be as in --like .*: --click-features 'act=categorical"),
        (["--item-numeric", "brand"], "brand"),
    ],
)
def test_other_choices_are_refused_by_their_options(first, tmp_path, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path, "day", log(2), items(), "--like", str(first), *arguments)


def test_without_the_file_of_items_it_is_asked_for(first, tmp_path):
    log(2).write_parquet(tmp_path / "log.parquet")
    arguments = ["interactions", str(tmp_path / "log.parquet"), "--like", str(first), "--out", str(tmp_path / "day")]
    with pytest.raises(InputError, match="items have brand, price there; name the file of items with --items"):
        prepare_command.main(arguments)


NAMES = [
    (["--side", "size,size"], {}, "--side: column size is named twice"),
    (["--side", "size", "--numeric", "size"], {}, "--numeric: column size is named with --side, too"),
    (["--item-side", "brand,brand"], {}, "--item-side: column brand is named twice"),
    (["--item-side", "click_act"], {"click_act": "brand"}, "column 'click_act' of .* prepared files have a column"),
    (["--item-numeric", "item_emb_d8"], {"item_emb_d8": "price"}, "column 'item_emb_d8' of .* prepared files have"),
    (["--item-side", "params"], {"params": "brand"}, "column 'params' of .* Flax has all parameters"),
    (["--item-side", "price"], {}, "column price has type Float64; categories are .* --item-numeric takes"),
    (["--bins", "1000"], {}, "--bins is 1000; it must be from 2 to 256"),
]


@pytest.mark.parametrize(("arguments", "names", "sentence"), NAMES, ids=[" ".join(a) for a, _, _ in NAMES])
def test_names_that_cannot_be_features_are_refused(tmp_path, arguments, names, sentence):
    table = items(80).with_columns(pl.col(old).alias(new) for new, old in names.items())
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path, "day", log(1), table, *arguments)


@pytest.mark.parametrize(("more", "which"), [([], "new"), (["--clicks", "all"], "all")])
def test_features_of_clicks_say_nothing_of_which_clicks_are_samples(tmp_path, more, which):
    out = prepare(tmp_path, "day", log(1), items(), "--click-features", "act,gap", "--ignore", "*", *more)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["options"]["clicks"] == which and set(manifest["columns"]["clicks"]) == {"act", "gap"}


def test_columns_without_a_usable_name_are_left_out(tmp_path, capsys):
    frame = log(1).rename({"size": "", "spent": "params"})
    table = items().rename({"brand": "click_brand"}).with_columns(tags=pl.Series([["a", "b"]] * 30))
    out = prepare(tmp_path, "day", frame, table)
    said = capsys.readouterr().out
    for name in ("", "params", "click_brand"):
        assert f"Left out: column {name} of " in said
    columns = json.loads((out / "manifest.json").read_text())["columns"]
    assert columns["item_lists"] == ["tags"] and "params" not in columns["numeric"]


@pytest.mark.parametrize("value", [1e39, -4e38])
def test_numbers_beyond_float32_are_refused_where_they_are(tmp_path, value):
    spent = pl.when(pl.int_range(pl.len()) == 5).then(pl.lit(value)).otherwise("spent")
    with pytest.raises(InputError, match="column spent, row 5: .* is not a number that fits"):
        prepare(tmp_path, "day", log(1, spent=spent), items(), "--numeric", "spent", "--ignore", "*")


@pytest.mark.parametrize("split", ["user", "time", "last"])
@pytest.mark.parametrize("dates", [False, True], ids=["numbers", "dates"])
def test_samples_since_a_time_are_those_of_the_whole_log(tmp_path, split, dates):
    frame = log(1).with_columns(item=pl.int_range(pl.len()) % 29 + 1)
    at = frame["time"][350]
    if dates:
        frame, at = frame.with_columns(pl.from_epoch("time")), f"{pl.from_epoch(pl.Series([at]))[0]:%Y-%m-%dT%H:%M:%S}"
    more = ["--side", "size", "--ignore", "*", "--split", split, "--clicks", "all", "--valid", "0.2", "--test", "0.2"]
    folders = [prepare(tmp_path, name, frame, items(), *more, *since) for name, since in
               (("all", []), ("recent", ["--since", str(at)]))]  # fmt: skip
    samples = []
    for folder in folders:
        users, names = ({0: None, **dict(pl.read_parquet(folder / "vocabularies" / f"{name}.parquet")
                        .select("id", "value").iter_rows())} for name in ("user_id", "item_id"))  # fmt: skip
        parts = [pl.read_parquet(folder / f"{part}.parquet") for part in ("train", "valid")]
        clicked = pl.concat(parts).filter(pl.col("label") == 1).select("user_id", "item_seq", "item_id")
        test = pl.read_parquet(folder / "test.parquet").select("user_id", "item_seq", "item_id")
        labels = pl.read_parquet(folder / "test_labels.parquet")["label"] == 1
        rows = pl.concat([clicked, test.filter(labels)]).iter_rows()
        samples.append({(users[u], tuple(names[i] for i in history), names[i]) for u, history, i in rows})
    ordered = frame.sort("time").to_dicts()
    recent = set()
    for k, row in enumerate(ordered):
        history = tuple(str(r["item"]) for r in ordered[:k] if r["user"] == row["user"])
        if k >= 350 and history:
            recent.add((str(row["user"]), history, str(row["item"])))
    assert samples[1] == recent < samples[0]


@pytest.mark.parametrize(
    ("times", "since", "sentence"),
    [
        (pl.col("time"), "2026-10-01", "the log has numbers; give a time as it has them"),
        (pl.from_epoch("time"), "1790000000", "the log has dates; give a time as it has them"),
        (pl.col("time"), "9e9", "--since leaves no click; give an earlier time"),
    ],
)
def test_a_time_that_is_none_of_the_logs_is_refused(tmp_path, times, since, sentence):
    with pytest.raises(InputError, match=sentence):
        prepare(tmp_path, "day", log(1, time=times), items(), "--since", since, "--split", "time", "--ignore", "*")
