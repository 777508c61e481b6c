"""Whatever columns a log and an item file have: prepared files hold their values, train takes them, or one sentence."""

import json
import math
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.config import load_config
from mmctr_jax.errors import InputError
from mmctr_jax.training.data import load_training_data

USERS, CLICKS, ITEMS = 12, 6, 25
ROWS = USERS * CLICKS

PHASES = [phase for phase in Phase if phase is not Phase.shrink]  # which would take minutes here

WORDS = st.sampled_from(["a", "B", "ö", "", "5", "5.0", "05", "True", "x|y", "[1]", "'", "nan", "2026-01-01", " a "])
NAMES = ["price", "tags", "label", "params", "click_x", "x_level", "", "a b", "ö", "a/b", "score", "z" * 99]


def many(values, size):
    """A column: from few different values, or as many as there are rows, with nothing known in some rows."""
    some = st.lists(values, min_size=1, max_size=size)
    picked = some.flatmap(lambda v: st.lists(st.sampled_from(v), min_size=size, max_size=size))
    holes = st.lists(st.sampled_from([False, False, True]), min_size=size, max_size=size)
    full = st.just([False] * size)
    return st.tuples(picked, st.one_of(full, holes)).map(
        lambda both: [None if hole else value for value, hole in zip(*both, strict=True)]
    )


def columns(size):
    floats = st.floats(-1e6, 1e6, width=32) | st.floats(allow_nan=True, allow_infinity=True, width=64)
    numbers = [st.integers(0, 3), st.integers(-(2**62), 2**62), st.floats(0, 100, width=32), floats]
    numbers = [many(kind, size).map(lambda v: pl.Series(v, strict=False)) for kind in numbers]
    words = many(WORDS, size).map(lambda v: pl.Series(v, dtype=pl.String))
    flags = many(st.booleans(), size).map(lambda v: pl.Series(v, dtype=pl.Boolean))
    lists = [
        many(st.lists(kind, max_size=4), size).map(lambda v, to=to: pl.Series(v, dtype=pl.List(to)))
        for kind, to in ((WORDS, pl.String), (st.integers(0, 9), pl.Int64), (st.floats(0, 1), pl.Float64))
    ]
    return st.dictionaries(st.sampled_from(NAMES), st.one_of(*numbers, words, flags, *lists), max_size=3)


def as_text(value):
    """A category, as a vocabulary spells it."""
    if value in (None, "", "nan") or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) else str(value)


def vocabulary(folder: Path, name: str) -> dict:
    rows = pl.read_parquet(folder / "vocabularies" / f"{name}.parquet").select("id", "value").iter_rows()
    return {0: None, **dict(rows)}


def check_column(kind: str, folder: Path, name: str, prepared: list, original: list) -> None:
    if kind == "numeric":
        expected = [None if v is None or math.isnan(v) else np.float32(v) for v in original]
        assert [None if v is None else np.float32(v) for v in prepared] == expected, name
    elif kind == "lists" and any(isinstance(row, str) for row in original):
        pass  # lists written as text: tests/test_raw.py
    elif kind == "lists":
        values = vocabulary(folder, name)
        found = [{values[i] for i in ids} for ids in prepared]
        assert found == [{str(v).strip() for v in row or () if v not in (None, "", "nan")} for row in original], name
    else:
        values = vocabulary(folder, name)
        assert [values[i] for i in prepared] == [as_text(v) for v in original], name


@settings(max_examples=40, deadline=None, phases=PHASES, suppress_health_check=list(HealthCheck))
@given(of_log=columns(ROWS), of_items=columns(ITEMS), seed=st.integers(0, 9))
def test_prepared_files_hold_what_the_columns_hold(of_log, of_items, seed):
    rng = np.random.default_rng(seed)
    clicked = np.concatenate([rng.permutation(ITEMS)[:CLICKS] for _ in range(USERS)])
    log = {"user": np.repeat(np.arange(USERS), CLICKS), "item": clicked, "time": np.arange(ROWS)}
    frame, items = pl.DataFrame(of_log | log), pl.DataFrame({**of_items, "item": np.arange(ITEMS)})
    with tempfile.TemporaryDirectory() as there:
        folder = Path(there)
        frame.write_parquet(folder / "log.parquet")
        items.write_parquet(folder / "items.parquet")
        arguments = ["interactions", folder / "log.parquet", "--items", folder / "items.parquet", "--negatives", "1"]
        arguments += ["--split", "user", "--valid", "0.2", "--test", "0.2", "--out", folder / "out"]
        try:
            assert prepare_command.main([str(argument) for argument in arguments]) == 0
        except InputError as error:
            assert "\n" not in str(error) and not (folder / "out").exists()
            return
        out = folder / "out"
        manifest = json.loads((out / "manifest.json").read_text())
        kinds = manifest["columns"]
        train = pl.read_parquet(out / "train.parquet").filter(pl.col("label") == 1)
        users, names = vocabulary(out, "user_id"), vocabulary(out, "item_id")
        rows = [int(users[u]) * CLICKS + len(h) for u, h in train.select("user_id", "item_seq").iter_rows()]
        assert [int(names[i]) for i in train["item_id"]] == clicked[rows].tolist() and rows
        for kind in ("side", "numeric", "lists"):
            for name in kinds[kind]:
                check_column(kind, out, name, train[name].to_list(), frame[name].gather(rows).to_list())
        info = pl.read_parquet(out / "item_info.parquet").filter(pl.col("item_id") > 0)
        in_training = set(train["item_id"]) | set(train["item_seq"].explode())
        info = info.filter(pl.col("item_id").is_in(sorted(in_training)))  # they decide what there is
        at = [int(names[i]) for i in info["item_id"]]
        for kind, place in (("side", "item_side"), ("numeric", "item_numeric")):
            for name in kinds[place]:
                check_column(kind, out, name, info[name].to_list(), items[name].gather(at).to_list())
        config = load_config(out / "out.yaml", [f"data.cache_dir={folder / 'cache'}"])
        assert load_training_data(config).train.rows == manifest["splits"]["train"]["rows"]
        # The same files as a later day's: every id and number is what it was.
        again = [*arguments[:-1], folder / "again", "--like", out]
        assert prepare_command.main([str(argument) for argument in again]) == 0
        later = pl.read_parquet(folder / "again" / "train.parquet").filter(pl.col("label") == 1)
        assert later.drop("clicks_level").equals(train.drop("clicks_level"))
        tables = [pl.read_parquet(there / "item_feature.parquet") for there in (out, folder / "again")]
        for before, after in zip(tables[0], tables[1].head(len(tables[0])), strict=True):
            if not before.equals(after):  # a value that only items outside of training had is numbered the day after
                numbers = list(zip(before, after, strict=True))
                assert all(x == y or (x == 0 and y > before.max()) for x, y in numbers), before.name
