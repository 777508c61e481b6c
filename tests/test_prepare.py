"""From a log to samples: histories are the past, training knows of nothing later, negatives are no clicks."""

import hashlib
import itertools
import json
import os
import tempfile
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmctr_jax.config import load_config
from mmctr_jax.errors import InputError
from mmctr_jax.prepare import encoding, samples
from mmctr_jax.prepare.draws import keys_of_users, mixed
from mmctr_jax.prepare.folder import config_text
from mmctr_jax.prepare.log import all_keys, in_order, sorted_log
from mmctr_jax.prepare.negatives import NegativeSampler
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.pipeline import prepare
from mmctr_jax.prepare.source import EARLIER, RATE, Source
from mmctr_jax.prepare.totals import LocalShards, Shard
from mmctr_jax.training.data import load_training_data


def make_log(seed=0, rows=1500, users=40, items=60, non_clicks=False) -> pl.DataFrame:
    """A log with popular items, equal times, repeated clicks and exact repetitions."""
    rng = np.random.default_rng(seed)
    log = pl.DataFrame(
        {
            "user": [f"u{u}" for u in rng.integers(0, users, rows)],
            "item": (rng.pareto(1, rows) * 5).astype(int) % items * 7 + 3,
            "time": rng.integers(0, 300, rows),
            "device": [["phone", "tablet", None][i] for i in rng.integers(0, 3, rows)],
        }
    )
    if non_clicks:
        log = log.with_columns(click=pl.Series(rng.random(rows) < 0.4))
    return pl.concat([log, log[:20]])


ONLY_LATE = ["late"] * 5  # a tag of no item that is in training


def make_items(items=60) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "item": [i * 7 + 3 for i in range(0, items, 2)] + [100_000],  # every other one, and one never clicked
            "tags": [["even", f"t{i % 5}", "even"] for i in range(0, items, 2)] + [["lonely", "t1", *ONLY_LATE]],
            "text": [f"item {i}" for i in range(0, items, 2)] + [None],
            "price": [float(i % 13) for i in range(0, items, 2)] + [None],
        }
    )


def options(**changed) -> Options:
    return Options(**({"split": "time", "negatives": 2, "history": 7, "levels": ("clicks", "price")} | changed))


class Prepared:
    """A prepared folder read back, in the source's own ids."""

    def __init__(self, folder: Path):
        self.folder, self.manifest = folder, json.loads((folder / "manifest.json").read_text())
        self.names = {
            p.stem: dict(zip(*(pq.read_table(p)[c].to_pylist() for c in ("id", "value")), strict=True))
            for p in (folder / "vocabularies").iterdir()
        }

    def table(self, split) -> pl.DataFrame:
        table = pl.read_parquet(self.folder / f"{split}.parquet")
        if split == "test":
            labels = pl.read_parquet(self.folder / "test_labels.parquet")
            assert table["ID"].to_list() == labels["ID"].to_list() == list(range(len(table)))
            table = table.with_columns(labels["label"])
        return table

    def rows(self, split) -> list[tuple]:
        """(user, history, item, label), item ids as integers."""
        table = self.table(split)
        name = {i: int(value) for i, value in self.names["item_id"].items()}
        return [
            (self.names["user_id"][u], tuple(name[i] for i in history), name[item], label)
            for u, history, item, label in table.select("user_id", "item_seq", "item_id", "label").iter_rows()
        ]


def run_prepare(tmp_path, log, opts, name="out", items=None, side=()) -> Prepared:
    source = Source(log, make_items() if items is None else items, [], side=list(side))
    prepare("interactions", source, opts, tmp_path / name)
    return Prepared(tmp_path / name)


# An oracle of plain loops ------------------------------------------------------------------------------------------


def interactions(log):
    """user → [(time, item, click)] in order, repetitions merged."""
    by_user, seen = defaultdict(list), {}
    has_clicks = "click" in log.columns
    for row in sorted(log.with_row_index().iter_rows(named=True), key=lambda r: (r["time"], r["index"])):
        key = row["user"], row["item"], row["time"]
        click = row["click"] if has_clicks else True
        if key in seen:
            seen[key][2] |= click
        else:
            seen[key] = [row["time"], row["item"], click]
            by_user[row["user"]].append(seen[key])
    return by_user


def is_candidate(rows, number, logged, every=False):
    """Whether a user's interaction may become a sample: a new click, or, of a log with non-clicks, anything."""
    _, item, click = rows[number]
    return logged or (click and (every or not any(i == item and c for _, i, c in rows[:number])))


def expected_samples(log, part_of, logged, history, min_history, every=False):
    """split → Counter of (user, history, item, label); part_of(user, number of the interaction) names the split.

    Sampled negatives are items that were clicked in training, so no row may be of another one.
    """
    expected = defaultdict(Counter)
    every_row = [(u, n, row) for u, rows in interactions(log).items() for n, row in enumerate(rows)]
    trained = {item for u, n, (_, item, click) in every_row if click and part_of(u, n) == "train"}
    for user, rows in interactions(log).items():
        for number, (time, item, click) in enumerate(rows):
            past = [i for t, i, c in rows if t < time and c]
            may = len(past) >= min_history and is_candidate(rows, number, logged, every)
            if may and (logged or item in trained):
                expected[part_of(user, number)][user, tuple(past[-history:]), item, int(click)] += 1
    return expected


def split_by_time(log, opts):
    by_user = interactions(log)
    times = sorted(t for rows in by_user.values() for t, _, c in rows if c)
    test = times[round((1 - opts.test) * len(times))]
    valid = times[round((1 - opts.test - opts.valid) * len(times))]
    time_of = {(u, n): row[0] for u, rows in by_user.items() for n, row in enumerate(rows)}
    return lambda u, n: "test" if time_of[u, n] >= test else "valid" if time_of[u, n] >= valid else "train"


@pytest.mark.parametrize("logged", [False, True])
@pytest.mark.parametrize("min_history", [0, 1, 4])
def test_split_by_time_gives_just_the_samples_that_plain_loops_give(tmp_path, logged, min_history):
    log = make_log(non_clicks=logged)
    opts = options(min_history=min_history, negatives=None if logged else 2)
    out = run_prepare(tmp_path, log, opts)
    expected = expected_samples(log, split_by_time(log, opts), logged, 7, min_history)
    for split in ("train", "valid", "test"):
        got = Counter(row for row in out.rows(split) if logged or row[3])
        assert got == expected[split] and sum(got.values()) > 20
        assert out.manifest["splits"][split]["rows"] == len(out.table(split))
        assert out.manifest["splits"][split]["positives"] == out.table(split)["label"].sum()


def test_rows_of_a_log_with_non_clicks_know_what_their_user_did_before(tmp_path):
    log, opts = make_log(non_clicks=True), options(negatives=None)
    out, part_of = run_prepare(tmp_path, log, opts), split_by_time(log, opts)
    expected = defaultdict(Counter)
    for user, rows in interactions(log).items():
        for number, (time, item, click) in enumerate(rows):
            earlier = [c for t, _, c in rows if t < time]
            expected[part_of(user, number)][user, item, int(click), len(earlier), sum(earlier)] += 1
    assert max(row[4] for row in expected["test"]) > opts.history  # more than histories hold
    for split in ("train", "valid", "test"):
        counts_and_rates = list(out.table(split).select(EARLIER).iter_rows())
        assert all((rate is None) == (n == 0) for n, rate in counts_and_rates)  # of nothing, no share is known
        earlier = [(n, round(n * (rate or 0))) for n, rate in counts_and_rates]
        got = Counter((user, *row, *found) for (user, _, *row), found in zip(out.rows(split), earlier, strict=True))
        assert got == expected[split]
    config = load_config(out.folder / "out.yaml", [f"data.cache_dir={tmp_path}"])
    assert [f.name for f in config.features.side if f.kind == "numeric"] == [*EARLIER, RATE]
    assert load_training_data(config).train.rows == len(out.table("train"))
    sampled = run_prepare(tmp_path, log, options(), "sampled").table("train")  # where they could tell nothing
    assert not {*EARLIER, RATE} & set(sampled.columns)


def test_click_rate_and_level_of_a_training_row_are_those_among_other_users(tmp_path):
    """Each user's rows see four of five parts of the users, never the user's own; later rows see all of training."""
    log, opts = make_log(non_clicks=True), options(negatives=None)
    out, part_of = run_prepare(tmp_path, log, opts), split_by_time(log, opts)
    every_row = [(u, n, row) for u, rows in interactions(log).items() for n, row in enumerate(rows)]
    trained = [(u, item, click) for u, n, (_, item, click) in every_row if part_of(u, n) == "train"]
    prior = np.mean([click for *_, click in trained])

    def rate(item, users):
        clicks = [click for user, i, click in trained if i == item and user in users]
        return (sum(clicks) + 5 * prior) / (len(clicks) + 5)

    every = {user for user, *_ in trained}
    for split in ("valid", "test"):
        for (_, _, item, _), found in zip(out.rows(split), out.table(split)["item_click_rate"], strict=True):
            assert found == pytest.approx(rate(item, every), rel=1e-6)
    keys = keys_of_users(pl.Series(sorted(every)), opts.seed)
    fold_of = {user: int(key % 5) for user, key in zip(sorted(every), keys, strict=True)}
    assert len(set(fold_of.values())) == 5
    columns = out.table("train").select("item_click_rate", "clicks_level").iter_rows()
    for (user, _, item, _), (found, level) in zip(out.rows("train"), columns, strict=True):
        others = {other for other in every if fold_of[other] != fold_of[user]}
        assert found == pytest.approx(rate(item, others), rel=1e-6)
        known = sum(click for u, i, click in trained if i == item and u in others)
        bounds = out.manifest["level_bounds"]["clicks"]
        assert level == (1 + sum(bound < known for bound in bounds) if known else 0)
    features = pl.read_parquet(out.folder / "item_feature.parquet")
    for item, found in features.select("item", "item_click_rate").iter_rows():
        assert found == pytest.approx(rate(int(item), every), rel=1e-6)


@pytest.mark.parametrize("logged", [False, True])
def test_leave_last_out_holds_out_the_last_clicks_of_a_share_of_users(tmp_path, logged):
    log, opts = make_log(non_clicks=logged), options(split="last", test=0.5, valid=0.3, negatives=None if logged else 2)
    out = run_prepare(tmp_path, log, opts)
    by_user = interactions(log)
    clicks = {
        u: [n for n, row in enumerate(rows) if row[2] and is_candidate(rows, n, logged)] for u, rows in by_user.items()
    }
    held = {s: {row[0] for row in out.rows(s) if row[3]} for s in ("valid", "test")}
    assert len(held["test"]) == pytest.approx(20, abs=1) and held["valid"] < held["test"]

    def part(user, n):
        number = sum(c < n for c in clicks[user])  # the click this row is, or leads to
        number = min(number, len(clicks[user]) - 1)
        if user in held["test"] and number == len(clicks[user]) - 1:
            return "test"
        last_left = len(clicks[user]) - 1 - (user in held["test"])
        return "valid" if user in held["valid"] and number == last_left else "train"

    expected = expected_samples(log, part, logged, 7, 0 if logged else 1)
    for split in ("train", "valid", "test"):
        assert Counter(row for row in out.rows(split) if logged or row[3]) == expected[split]


def test_split_by_user_keeps_each_user_in_one_split_whoever_else_comes(tmp_path):
    log, opts = make_log(), options(split="user", test=0.25, valid=0.2)
    out = run_prepare(tmp_path, log, opts)
    users = {split: {row[0] for row in out.rows(split)} for split in ("train", "valid", "test")}
    assert [len(users[s]) for s in ("train", "valid", "test")] == [22, 8, 10]
    assert not (users["train"] & users["valid"] | users["train"] & users["test"] | users["valid"] & users["test"])
    expected = expected_samples(log, lambda u, n: next(s for s in users if u in users[s]), False, 7, 1)
    for split in users:
        assert Counter(row for row in out.rows(split) if row[3]) == expected[split]
    one_more = pl.concat([log, log[:3].with_columns(user=pl.lit("newcomer"))])
    again = run_prepare(tmp_path, one_more, opts, "again")
    moved = [u for s in users for u in users[s] if u not in {row[0] for row in again.rows(s)}]
    assert len(moved) <= 3


def test_all_clicks_on_request_and_then_targets_may_stand_in_their_history(tmp_path):
    log, opts = make_log(), options(clicks="all")
    out = run_prepare(tmp_path, log, opts)
    expected = expected_samples(log, split_by_time(log, opts), False, 7, 1, every=True)
    for split in ("train", "valid", "test"):
        assert Counter(row for row in out.rows(split) if row[3]) == expected[split]
    new = run_prepare(tmp_path, log, options(history=1000), "new")
    assert any(row[2] in row[1] for row in out.rows("train"))
    assert not any(row[2] in row[1] for split in ("train", "valid", "test") for row in new.rows(split))


@pytest.mark.parametrize("split", ["user", "time", "last"])
def test_only_the_most_recent_samples_of_each_user_on_request(tmp_path, split):
    late = pl.DataFrame({"user": "u00", "item": [3, 10], "time": [299, 301], "device": None})  # not in training
    log = pl.concat([make_log(), late.cast(make_log().schema)])
    every = run_prepare(tmp_path, log, options(split=split), "every")
    last = run_prepare(tmp_path, log, options(split=split, per_user=1), "last")
    for split in ("train", "valid", "test"):
        by_user = defaultdict(list)
        for row in every.rows(split):
            if row[3]:
                by_user[row[0]].append(row)
        assert [row for row in last.rows(split) if row[3]] == [rows[-1] for rows in by_user.values()]


# Nothing knows of what comes later ----------------------------------------------------------------------------------


def later(log, out, split, opts) -> np.ndarray:
    """Mask of the log's rows that are not in training."""
    if split == "user":
        train = {row[0] for row in out.rows("train")}
        return np.array([u not in train for u in log["user"]])
    if split == "time":
        part = split_by_time(log, opts)
        number = {}
        for user, rows in interactions(log).items():
            number |= {(user, time, item): n for n, (time, item, _) in enumerate(rows)}
        keys = log.select("user", "time", "item").iter_rows()
        return np.array([part(key[0], number[key]) != "train" for key in keys])
    held = {(u, i) for s in ("valid", "test") for u, _, i, label in out.rows(s) if label}
    lasts = {u: {rows[-1][0], rows[-2][0]} for u, rows in interactions(log).items() if len(rows) > 1}
    return np.array([(u, i) in held and t in lasts[u] for u, i, t in log.select("user", "item", "time").iter_rows()])


@pytest.mark.parametrize("split", ["user", "time", "last"])
def test_training_data_does_not_change_with_later_clicks(tmp_path, split):
    # Distinct times: which clicks are held out then does not depend on the items, which are what changes here.
    log = make_log().with_columns(time=pl.Series(np.random.default_rng(5).permutation(1520)), new=pl.lit(False))
    log = log.with_columns(device=pl.col("device").fill_null("none"))
    every = "all" if split == "last" else None  # where the last new click is, depends on the later ones by its nature
    opts = options(split=split, valid=0.2, test=0.2, min_value_count=2, clicks=every)
    before = run_prepare(tmp_path, log, opts, "before", side=["device"])
    mask = later(log, before, split, opts)
    assert 50 < mask.sum() < 900 if split != "last" else mask.sum() >= 16
    rng = np.random.default_rng(9)
    other = log.with_columns(
        item=pl.when(pl.Series(mask)).then(pl.Series(rng.integers(0, 70, len(log)) * 7 + 3)).otherwise("item"),
        device=pl.when(pl.Series(mask)).then(pl.lit("spaceship")).otherwise("device"),
    )
    after = run_prepare(tmp_path, other, opts, "after", side=["device"])
    a, b = before.table("train"), after.table("train")
    assert a.filter(label=1).equals(b.filter(label=1))  # histories, levels, side features, all numbers
    assert a.drop("item_id", "clicks_level", "price_level").equals(b.drop("item_id", "clicks_level", "price_level"))
    # A negative is no item that the user clicks at any time: where such a click came or went, others are drawn.
    clicked = defaultdict(set)
    for each in (log, other):
        for user, item in each.select("user", "item").iter_rows():
            clicked[user].add(item)
    rows = before.rows("train"), after.rows("train")
    changed = [i for i in range(0, len(a), 3) if rows[0][i : i + 3] != rows[1][i : i + 3]]
    for at in changed:
        assert any(row[2] in clicked[row[0]] for both in rows for row in both[at : at + 3] if not row[3])
    assert len(changed) < len(a) / 3
    assert before.manifest["level_bounds"] == after.manifest["level_bounds"]
    training = before.manifest["training_items"]
    assert training == after.manifest["training_items"]
    features = [pl.read_parquet(p.folder / "item_feature.parquet").head(training) for p in (before, after)]
    assert features[0].equals(features[1])
    for name in ("item_tags", "device"):
        assert before.names[name] == after.names[name] and "spaceship" not in after.names[name].values()


@pytest.mark.parametrize("split", ["time", "last"])
def test_validation_does_not_change_with_test_clicks(tmp_path, split):
    log = make_log().with_columns(time=pl.Series(np.random.default_rng(5).permutation(1520)))
    opts = options(split=split, valid=0.2, test=0.2, clicks="all")
    before = run_prepare(tmp_path, log, opts, "before")
    test = {(u, h, i) for u, h, i, label in before.rows("test") if label}
    rows = interactions(log)
    at = {(u, r[1], r[0]) for u, mine in rows.items() for n, r in enumerate(mine)
          if (u, tuple(x[1] for x in mine[:n])[-7:], r[1]) in test}  # fmt: skip
    mask = pl.Series([key in at for key in log.select("user", "item", "time").iter_rows()])
    assert mask.sum() >= len(test)
    other = log.with_columns(item=pl.when(mask).then(3).otherwise("item"))
    after = run_prepare(tmp_path, other, opts, "after")
    assert before.table("valid").filter(label=1).equals(after.table("valid").filter(label=1))


# Negatives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["user", "time", "last"])
def test_negatives_are_training_items_that_the_user_never_clicks(tmp_path, split):
    log, opts = make_log(), options(split=split, negatives=3)
    out = run_prepare(tmp_path, log, opts)
    ever, training = defaultdict(set), {out.names["item_id"][i] for i in range(1, out.manifest["training_items"] + 1)}
    for user, item in log.select("user", "item").iter_rows():
        ever[user].add(item)
    for name in ("train", "valid", "test"):
        rows = out.rows(name)
        assert len(rows) % 4 == 0
        places = Counter()
        for group in (rows[i : i + 4] for i in range(0, len(rows), 4)):
            assert sum(row[3] for row in group) == 1 and len({row[:2] for row in group}) == 1
            negatives = [row[2] for row in group if not row[3]]
            assert len(set(negatives)) == 3 and not ever[group[0][0]] & set(negatives)
            assert {str(item) for item in negatives} <= training
            places[[row[3] for row in group].index(1)] += 1
        if name == "train":  # the click stands anywhere among them: the order of rows tells nothing
            assert min(places.values()) > 0.7 * max(places.values()) and len(places) == 4


def keys(samples, seed=1):
    return mixed(np.arange(samples, dtype=np.uint64), seed)


def test_negatives_follow_popularity_to_the_power_alpha():
    clicks = np.array([0, 1, 10, 100, 1000, 0])
    for alpha in (0.0, 0.75, 1.0):
        sampler = NegativeSampler(clicks, np.array([1]), np.array([4]), alpha)
        drawn = np.bincount(sampler.draw(np.zeros(20_000, int), 1, keys(20_000))[:, 0], minlength=6) / 20_000
        share = np.array([0, 1, 10**alpha, 100**alpha, 1000**alpha, 0])
        np.testing.assert_allclose(drawn, share / share.sum(), atol=0.015)
        assert drawn[0] == drawn[5] == 0


def test_negatives_of_one_sample_do_not_depend_on_other_samples():
    rng = np.random.default_rng(0)
    clicks, user, item = rng.integers(1, 50, 30), rng.integers(0, 9, 60), rng.integers(0, 30, 60)
    sampler = NegativeSampler(clicks, user, item, 0.75)
    samples = rng.integers(0, 9, 100)
    others = np.where(np.arange(100) == 50, samples, (samples + 1) % 9)
    assert (sampler.draw(samples, 3, keys(100))[50] == sampler.draw(others, 3, keys(100))[50]).all()
    assert (sampler.draw(samples, 3, keys(100)) != sampler.draw(samples, 3, keys(100, 2))).any()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**31), st.data())
def test_who_leaves_few_items_gets_all_of_them(items, count, seed, data):
    mine = data.draw(st.sets(st.integers(0, items - 1)))
    clicks = 10 ** np.arange(items)  # what is left may be drawn very rarely
    sampler = NegativeSampler(clicks, np.full(len(mine), 3), np.array(sorted(mine), int), 1.0)
    for row in sampler.draw(np.array([3, 3]), count, keys(2, seed)):
        drawn = [int(i) for i in row if i >= 0]
        assert len(drawn) == len(set(drawn)) == min(count, items - len(mine)) and not set(drawn) & mine


def test_a_click_without_any_negative_left_stays(tmp_path):
    log = pl.DataFrame({"user": [1] * 5 + [2] * 5, "item": [1, 2, 3, 1, 2] * 2, "time": range(10)})
    out = run_prepare(
        tmp_path, log, options(split="last", valid=1.0, test=1.0, levels=(), clicks="all"), items=log.select("item")[:0]
    )
    assert [row[3] for row in out.rows("test")] == [1, 1]
    assert out.manifest["splits"]["test"]["missing_negatives"] == 4


# Levels, vocabularies, items ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1, max_size=40), st.integers(2, 10), st.data())
def test_levels_are_the_share_of_training_items_below(values, bins, data):
    training = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    array = np.array([np.nan if v is None else v for v in values], float)
    bounds = encoding.quantile_bounds(array[training], bins)
    levels = encoding.levels_of(array, bounds)
    known = sorted(v for v, t in zip(values, training, strict=True) if t and v is not None)
    assert (levels == 0).tolist() == [v is None or not known for v in values]
    for value, mine in zip(values, levels, strict=True):
        if mine:
            assert 1 <= mine <= bins and mine == 1 + sum(bound < value for bound in bounds)
    if known:
        assert bounds == [pytest.approx(np.quantile(known, i / bins)) for i in range(1, bins)]


def test_items_carry_what_the_source_knows(tmp_path):
    log = make_log()
    out = run_prepare(tmp_path, log, options(min_value_count=2))
    features = pl.read_parquet(out.folder / "item_feature.parquet")
    assert features["item_id"].to_list() == list(range(1, len(features) + 1))
    keys = set(log["item"]) | set(make_items()["item"])
    assert {int(i) for i in features["item"]} == keys and features["item"].is_unique().all()
    known = {str(row["item"]): row for row in make_items().iter_rows(named=True)}
    train = log.filter(pl.Series(~later(log, out, "time", options())))
    clicks = Counter(str(i) for _, rows in interactions(train).items() for _, i, _ in rows)
    tag_count = Counter(tag for item, row in known.items() if clicks[item] for tag in set(row["tags"]))
    tag_name = out.names["item_tags"]
    frequent = sorted((-n, tag) for tag, n in tag_count.items() if n >= 2)
    assert list(tag_name.items()) == [(i, tag) for i, (_, tag) in enumerate(frequent, start=1)]
    for row in features.iter_rows(named=True):
        mine = known.get(row["item"], {"tags": [], "text": None, "price": None})
        distinct = dict.fromkeys(t for t in mine["tags"] if t in tag_name.values())
        assert [tag_name[i] for i in row["item_tags"]] == list(distinct)
        assert (row["item_title"], row["price"]) == (mine["text"] or "", mine["price"])
        new = row["item_id"] > out.manifest["training_items"]
        assert (row["clicks_level"] == 0) == (clicks[row["item"]] == 0) == new
        assert (row["price_level"] == 0) == (mine["price"] is None)
    counts = pl.read_parquet(out.folder / "vocabularies" / "item_id.parquet")
    assert dict(zip(counts["value"], counts["count"], strict=True)) == {i: clicks[i] for i in features["item"]}
    assert out.manifest["items_the_source_says_nothing_of"] == len(keys - set(make_items()["item"]))
    info = pl.read_parquet(out.folder / "item_info.parquet")
    assert info["item_id"].to_list() == list(range(len(features) + 1)) and info["item_tags"][0].to_list() == []
    assert info["item_tags"][1:].to_list() == features["item_tags"].to_list()
    by_item = dict(features.select("item_id", "clicks_level").iter_rows())
    for split in ("train", "valid", "test"):
        table = out.table(split)
        assert table["clicks_level"].to_list() == [by_item[i] for i in table["item_id"]]


def test_rare_items_go_by_their_training_clicks_alone(tmp_path):
    log = make_log()
    every = run_prepare(tmp_path, log, options(), "every")
    kept = run_prepare(tmp_path, log, options(min_item_clicks=10), "kept")
    counts = pl.read_parquet(every.folder / "vocabularies" / "item_id.parquet")
    frequent = {int(v) for v in counts.filter(pl.col("count") >= 10)["value"]}
    assert {int(v) for v in kept.names["item_id"].values()} == frequent
    # the split is the whole log's; what is dropped is dropped from histories too
    expected = expected_samples(log.filter(pl.col("item").is_in(frequent)), split_of(log, options()), False, 7, 1)
    assert Counter(row for row in kept.rows("test") if row[3]) == expected["test"]
    assert kept.manifest["interactions_of_rare_items"] > 0 and kept.manifest["rare_items"] > 0


def split_of(log, opts):
    """As split_by_time(log), for the interactions of a log from which items were dropped."""
    cut_of = split_by_time(log, opts)
    parts = {}
    for user, rows in interactions(log).items():
        for n, (time, _, _) in enumerate(rows):
            parts[time] = cut_of(user, n)
    fewer = {}

    def part(user, n):
        if not fewer:
            counts = Counter(i for rows in interactions(log).values() for t, i, _ in rows if parts[t] == "train")
            for u, rows in interactions(log).items():
                fewer[u] = [t for t, i, _ in rows if counts[i] >= 10]
        return parts[fewer[user][n]]

    return part


def test_side_features_are_numbered_by_training_rows(tmp_path):
    log = make_log().with_columns(weight=pl.Series(np.random.default_rng(3).random(1520) + 0.5))
    out = run_prepare(tmp_path, log, options(), side=["device"])
    assert set(out.names["device"].values()) == {"phone", "tablet"}
    assert out.manifest["side"][0] == {"name": "device", "vocab_size": 3}
    seen = {(row["user"], row["item"], row["device"], np.float32(row["weight"])) for row in log.iter_rows(named=True)}
    table, rows = out.table("train"), out.rows("train")
    for start in range(0, len(rows), 3):
        device, weight = (table[name][start : start + 3].to_list() for name in ("device", "weight"))
        assert len(set(device)) == len(set(weight)) == 1  # a click's negatives have the same
        click = next(row for row in rows[start : start + 3] if row[3])
        assert (click[0], click[2], out.names["device"].get(device[0]), np.float32(weight[0])) in seen


# The folder ---------------------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_same_log_gives_the_same_bytes(tmp_path, monkeypatch):
    results = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        results.append(digests(run_prepare(Path(), make_log(), options(), side=["device"]).folder))
    assert results[0] == results[1] and len(results[0]) == 12


def test_the_ready_config_is_one_that_training_takes(tmp_path):
    out = run_prepare(tmp_path, make_log(), options(), name="shop", side=["device"])
    config = load_config(out.folder / "shop.yaml", [f"data.cache_dir={tmp_path / 'cache'}"])
    assert [f.name for f in config.features.side] == ["device", "clicks_level", "price_level"]
    data = load_training_data(config)
    weighted = run_prepare(tmp_path, make_log().with_columns(weight=pl.lit(1.5)), options(history=2), name="weighted")
    weighted = load_config(weighted.folder / "weighted.yaml")
    assert weighted.features.weight == "weight" and config.features.weight is None
    assert weighted.model.max_history == 2 and weighted.model.name == "matching"
    assert data.train.rows == len(out.table("train")) and data.items.features.num_items == len(
        pl.read_parquet(out.folder / "item_info.parquet")
    )


def test_from_a_million_ids_on_tables_are_stepped_by_rows(tmp_path):
    manifest = run_prepare(tmp_path, make_log(), options(), side=["device"]).manifest
    (tmp_path / "few.yaml").write_text(config_text(manifest))
    (tmp_path / "many.yaml").write_text(config_text(manifest | {"items": 999_999}))  # and its devices and levels
    few, many = (load_config(tmp_path / f"{name}.yaml").train for name in ("few", "many"))
    assert few.tables is None and many.tables.optimizer == "adam"
    assert many.model_copy(update={"tables": None}) == few


def test_the_manifest_counts_what_the_files_hold(tmp_path):
    late = pl.DataFrame({"user": ["a"] * 4, "item": [3, 10, 17, 24], "time": [299, 301, 302, 303]})  # not in training
    log = make_log(non_clicks=True)
    late = late.with_columns(device=pl.lit(None, pl.String), click=pl.col("time") < 303)
    log = pl.concat([log, late.select(log.columns).cast(log.schema)]).with_columns(weight=pl.lit(2.0))
    for changed in ({}, {"negatives": None}):
        out = run_prepare(tmp_path, log, options(**changed), str(len(changed)))
        part = split_by_time(log, options())
        clicks = [
            (part(u, n), item)
            for u, rows in interactions(log).items()
            for n, (_, item, click) in enumerate(rows)
            if click
        ]
        assert out.manifest["weight"] and out.manifest["interactions"] == len(log)
        assert out.manifest["options"]["clicks"] == ("all" if changed else "new")
        for split in ("train", "valid", "test"):
            table, told = out.table(split), out.manifest["splits"][split]
            lengths = table["item_seq"].list.len().to_list()[:: 1 if changed else 3]
            assert told["users"] == table["user_id"].n_unique() and told["missing_negatives"] == 0
            assert told["history_mean"] == pytest.approx(np.mean(lengths), abs=1e-3)
            assert (told["history_p50"], told["history_p90"]) == tuple(int(np.quantile(lengths, q)) for q in (0.5, 0.9))
            training = out.manifest["training_items"]
            new = table.filter((pl.col("label") == 1) & (pl.col("item_id") > training))
            assert not len(new) or (changed and split != "train")
            unknown = [item for part, item in clicks if part == split and ("train", item) not in clicks]
            assert told["clicks_on_items_not_clicked_in_training"] == len(unknown) and (unknown or split == "train")
        users = pl.read_parquet(out.folder / "vocabularies" / "user_id.parquet")
        assert set(out.table("train")["user_id"]) <= set(users.filter(pl.col("count") > 0)["id"])
        assert users["id"].to_list() == list(range(1, len(users) + 1)) and users["count"].sum() > 0
        assert users["value"].to_list()[-1] == "a" and users["count"].to_list()[-1] == 0  # those in training come first


def test_popularity_counts_clicks_alone_and_samples_clicks_alone(tmp_path):
    """Of a log with non-clicks, from which non-clicks are sampled all the same."""
    log = make_log(non_clicks=True)
    out = run_prepare(tmp_path, log, options())
    part, training = split_by_time(log, options()), Counter()
    for user, rows in interactions(log).items():
        training.update(i for n, (_, i, c) in enumerate(rows) if c and part(user, n) == "train")
    features = pl.read_parquet(out.folder / "item_feature.parquet")
    assert {int(i) for i, level in features.select("item", "clicks_level").iter_rows() if level} == set(training)
    clicked = {(u, i) for u, rows in interactions(log).items() for _, i, c in rows if c}
    for split in ("train", "valid", "test"):
        rows = out.rows(split)
        assert all((row[0], row[2]) in clicked if row[3] else row[2] in training for row in rows)


def test_chunks_are_joined_without_a_seam(tmp_path, monkeypatch):
    whole = run_prepare(tmp_path, make_log(), options(), "whole")
    monkeypatch.setattr(samples, "_ROWS_PER_CHUNK", 20)
    draw, drawn_by = NegativeSampler.draw, []
    monkeypatch.setattr(
        NegativeSampler, "draw", lambda self, user, n, keys: drawn_by.append(keys) or draw(self, user, n, keys)
    )
    pieces = run_prepare(tmp_path, make_log(), options(), "pieces")
    each = np.concatenate(drawn_by)
    assert len(drawn_by) > 10 and len(np.unique(each)) == len(each)  # each sample draws numbers of its own
    for split in ("train", "valid", "test"):  # `table` checks the test file's ID
        assert whole.table(split).equals(pieces.table(split))


def in_shards(source: Source, users_in_each: list[int], seed: int) -> LocalShards:
    """The source's log, cut before the users with these places in their order."""
    users, shards = in_order(source.log["user"].unique()), []
    for first, end in itertools.pairwise([0, *users_in_each, len(users)]):
        some = source.log.filter(pl.col("user").is_in(users[first:end].implode()))
        if len(some):
            shards.append(Shard(*sorted_log(replace(source, log=some)), seed))
    return LocalShards(shards)


@settings(max_examples=25, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 39), min_size=1, max_size=4, unique=True).map(sorted),
    changed=st.fixed_dictionaries(
        {},
        optional={
            "split": st.sampled_from(["user", "time", "last"]),
            "negatives": st.sampled_from([None, 1, 3]),
            "per_user": st.just(2),
            "min_item_clicks": st.just(9),
            "min_value_count": st.just(30),
            "clicks": st.just("all"),
            "since": st.just(40.0),
        },
    ),
)
def test_a_log_in_shards_gives_the_same_samples(cuts, changed):
    rng = np.random.default_rng(1)
    log = make_log(non_clicks=True)
    log = log.with_columns(
        weight=pl.Series(rng.random(len(log)) + 0.5),
        price=pl.Series(rng.random(len(log))),
        likes=pl.Series(rng.random(len(log)) < 0.3),
        click_price=pl.Series(rng.random(len(log))),
        item_seq_bought=pl.Series(rng.random(len(log)) < 0.2),
        interests=pl.Series([["a", "b", "c"][: rng.integers(0, 4)] for _ in range(len(log))], dtype=pl.List(pl.String)),
    )
    source = Source(
        log,
        make_items(),
        [],
        side=["device"],
        numeric=["price"],
        lists=["interests"],
        labels={"likes": 0.3},
        clicks={"price": "numeric", "gap": "numeric"},
        histories={"bought": "action"},
        item_numeric=["price"],
    )
    opts = options(**changed)
    with tempfile.TemporaryDirectory() as folder:
        prepare("interactions", source, opts, Path(folder) / "whole")
        prepare("interactions", source, opts, Path(folder) / "parts", shards=in_shards(source, cuts, opts.seed))
        whole, parts = (Prepared(Path(folder) / name) for name in ("whole", "parts"))
        assert whole.manifest | {"folder": ""} == parts.manifest | {"folder": ""}
        for split in ("train", "valid", "test"):
            assert whole.table(split).equals(parts.table(split))
            assert (parts.folder / f"{split}.parquet" / "_SUCCESS").exists()
        for file in [whole.folder / "item_info.parquet", *(whole.folder / "vocabularies").iterdir()]:
            assert file.read_bytes() == (parts.folder / file.relative_to(whole.folder)).read_bytes()


def test_another_seed_is_another_draw(tmp_path):
    one, two = (run_prepare(tmp_path, make_log(), options(split="user", seed=s), str(s)) for s in (1, 2))
    assert {row[0] for row in one.rows("test")} != {row[0] for row in two.rows("test")}
    one, two = (run_prepare(tmp_path, make_log(), options(seed=s), f"t{s}") for s in (1, 2))
    assert one.table("train").filter(label=1).equals(two.table("train").filter(label=1))
    groups = [
        [sorted(rows[i : i + 3]) for i in range(0, len(rows), 3)] for rows in (one.rows("train"), two.rows("train"))
    ]
    assert groups[0] != groups[1]  # other negatives
    places = [[row[3] for row in prepared.rows("train")] for prepared in (one, two)]
    assert places[0] != places[1]


def test_a_repeated_row_is_its_click(tmp_path):
    log = pl.DataFrame(
        {"user": [1, 1, 1, 1], "item": [5, 6, 6, 7], "time": [1, 2, 2, 3], "click": [True, False, True, False]}
        | {"weight": [1.0, 2.0, 3.0, 4.0], "device": ["a", "b", "c", "d"]}
    )
    found, lost = sorted_log(Source(log, log.select("item")[:0], [], side=["device"]))
    assert lost == 1 and found.click.tolist() == [True, True, False]
    assert found.weight.tolist() == [1, 3, 4] and found.side["device"].to_list() == ["a", "c", "d"]


def test_numbers_keep_their_order_when_other_ids_come(tmp_path):
    log = pl.DataFrame({"user": [1, 2, 3], "item": ["x", "10", "9"], "time": [1, 2, 3]})
    items = sorted_log(Source(log, log.select("item")[:0], []))[0].items
    assert all_keys(items, pl.Series([2, 10])).to_list() == ["2", "9", "10", "x"]


def test_users_with_too_little_history_are_not_held_out(tmp_path):
    log = make_log()
    out = run_prepare(
        tmp_path, log, options(split="last", valid=1.0, test=1.0, min_history=8, clicks="all", per_user=None)
    )
    by_user = interactions(log)
    eligible = {
        u: [n for n, row in enumerate(rows) if sum(t < row[0] for t, _, _ in rows) >= 8] for u, rows in by_user.items()
    }
    for split, place in (("test", -1), ("valid", -2)):
        expected = {u: by_user[u][e[place]][1] for u, e in eligible.items() if len(e) >= -place}
        assert {row[0]: row[2] for row in out.rows(split) if row[3]} == expected


@pytest.mark.parametrize("min_history, since", [(1, None), (8, None), (20, 100), (0, None)])
def test_how_many_interactions_are_no_samples_for_want_of_earlier_clicks_is_said(tmp_path, caplog, min_history, since):
    log = make_log()
    run_prepare(tmp_path, log, options(min_history=min_history, clicks="all", since=since))
    rows = [(t, rows) for rows in interactions(log).values() for t, *_ in rows if since is None or t >= since]
    short = sum(sum(before < t for before, *_ in rows) < min_history for t, rows in rows)
    said = [message for message in caplog.messages if "--min-history" in message]
    assert (20 * short > len(rows)) == (min_history >= 8)
    if min_history >= 8:
        assert len(said) == 1 and said[0].startswith(f"{short:,} of {len(rows):,} interactions (")
    else:
        assert not said


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("last", ["manifest.json", "out"])
def test_a_preparation_that_fails_leaves_nothing(tmp_path, monkeypatch, last, failure):
    """However late it fails: at the last file, or when the whole folder takes its name."""
    replace = os.replace

    def fail(source, target):
        if Path(target).name == last:
            raise failure
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises((KeyboardInterrupt, InputError), match="No space left|^$"):
        run_prepare(tmp_path, make_log(), options())
    assert list(tmp_path.iterdir()) == []


def test_what_is_refused(tmp_path):
    log = make_log()
    for changed, message in (
        ({"levels": ("colour",)}, "--levels colour: there is no such numeric item column; there are clicks, price"),
        ({"negatives": None}, "the log has no non-clicks"),
        ({"min_history": 10_000}, "leaves no rows for train"),
        ({"valid": 0.7, "test": 0.3}, "leave some for training"),
        ({"history": 0}, "--history is 0; it must be from 1"),
        ({"min_item_clicks": 10_000}, "leaves no rows for train"),
        ({"valid": 0.0}, "give shares above 0"),
        ({"alpha": -1.0}, "--alpha is -1.0; it must be from 0 to 10"),
        ({"bins": 1}, "--bins is 1; it must be from 2"),
        ({"levels": ("price", "price")}, "--levels price: name each column once"),
        ({"levels": ("item_title",)}, "none that item_feature has of its own"),
    ):
        with pytest.raises(InputError, match=message):
            run_prepare(tmp_path, log, options(**changed))
    source = Source(log, make_items(), [], has_times=False)
    with pytest.raises(InputError, match="--split time needs times"):
        prepare("microlens", source, options(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    late = make_log().with_columns(click=pl.col("time") < 270)  # the only non-clicks are in the test part
    with pytest.raises(InputError, match="Every label of train is 1; choose another split or larger shares"):
        run_prepare(tmp_path, late, options(negatives=None))
    for name in ("new\nline", "n" * 300):
        with pytest.raises(InputError, match="cannot be printed|cannot be a folder"):
            run_prepare(tmp_path, log, options(), name)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written; name another|cannot be a folder"):
        run_prepare(tmp_path / "file", log, options())
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists; remove it or name another"):
        run_prepare(tmp_path, log, options())
