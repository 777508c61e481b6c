"""Yesterday's model and tomorrow's log: numbers keep their meaning, or nothing is scored."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmctr_jax.commands import predict as predict_command
from mmctr_jax.commands import prepare as prepare_command
from mmctr_jax.commands import train as train_command
from mmctr_jax.config import load_config
from mmctr_jax.data.items import load_items
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.numbering import check_same_numbering, grown, numbering_of
from mmctr_jax.devices.sharding import make_mesh, put_items
from mmctr_jax.embed import item_info
from mmctr_jax.embed.item_info import ItemInfo
from mmctr_jax.embed.pipeline import embed
from mmctr_jax.errors import InputError
from mmctr_jax.export.folder import export
from mmctr_jax.features import CategoricalFeature, CodesFeature, Features, NumericFeature
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import restore_best
from mmctr_jax.prepare import writing
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.data import load_training_data
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import init_state, make_predicting
from mmctr_jax.training.warm_start import restored, warm_started

TODAY = [f"b{i:03}" for i in range(1, 41)]
LATER = [f"a{i:03}" for i in range(1, 6)] + TODAY[:15] + TODAY[20:]  # five are new, five are gone
CODES = {"name": "c", "source": "v", "dim": 4, "levels": 2, "size": 4}
SMALL = ["train.epochs=2", "train.batch_size=64", "model.embedding_dim=4", "model.deep=[8]", "train.length_buckets=[]"]


def write_day(folder: Path, name: str, items: list[str], seed: int) -> None:
    """A log in which people of taste k click items whose number leaves k when divided by 3, and its items."""
    rng, rows, time = np.random.default_rng(seed), [], seed * 10**7
    for user in range(60):
        mine = [item for item in items if int(item[1:]) % 3 == user % 3]
        for _ in range(12):
            time += 1 + int(rng.integers(100))
            item = rng.choice(mine) if rng.random() < 0.9 else rng.choice(items)
            rows.append((f"u{user}", str(item), time, ["phone", "tablet"][user % 2], f"{rng.gamma(2, 9):.2f}"))
    pl.DataFrame(rows, ["user", "item", "time", "device", "price"], orient="row").write_csv(folder / f"{name}.csv")
    frame = pl.DataFrame({"item": items, "tags": [f"t{int(i[1:]) % 4}|{i[0]}" for i in items]})
    frame.write_csv(folder / f"{name}_items.csv")


def prepare(folder: Path, name: str, *more: str) -> Path:
    out = folder / name
    arguments = ["interactions", folder / f"{name}.csv", "--items", folder / f"{name}_items.csv", "--tags", "tags"]
    arguments += ["--side", "device", "--numeric", "price", "--negatives", "1", "--out", out, *more]
    assert prepare_command.main([str(argument) for argument in arguments]) == 0
    return out


@pytest.fixture(scope="module")
def days(tmp_path_factory) -> Path:
    """today (prepared, trained as `run`), tomorrow prepared like it, and tomorrow prepared anew as `anew`."""
    folder = tmp_path_factory.mktemp("days")
    write_day(folder, "today", TODAY, 1)
    write_day(folder, "tomorrow", LATER, 2)
    prepare(folder, "today")
    config = load_config(folder / "today" / "today.yaml", [*SMALL, f"data.cache_dir={folder / 'cache'}"])
    train(config, folder / "run")
    prepare(folder, "tomorrow", "--like", str(folder / "run"))
    for ending in (".csv", "_items.csv"):
        (folder / f"anew{ending}").write_bytes((folder / f"tomorrow{ending}").read_bytes())
    prepare(folder, "anew")
    return folder


def vocabulary(folder: Path, name: str) -> dict[int, str]:
    return dict(pl.read_parquet(folder / "vocabularies" / f"{name}.parquet").select("id", "value").iter_rows())


# Numbers


@pytest.mark.parametrize("name", ["user_id", "item_id", "item_tags", "device"])
def test_what_was_known_keeps_its_number_and_the_rest_comes_after(days, name):
    before, after = vocabulary(days / "today", name), vocabulary(days / "tomorrow", name)
    assert {number: after[number] for number in before} == before
    assert sorted(after) == list(range(1, len(after) + 1))
    if name == "item_id":
        assert set(after.values()) - set(before.values()) == set(LATER) - set(TODAY)


def test_rows_decode_to_the_log(days):
    """Each click of a sample was that user's, and its history is what they clicked before, in order."""
    log = pl.read_csv(days / "tomorrow.csv")
    users, items = vocabulary(days / "tomorrow", "user_id"), vocabulary(days / "tomorrow", "item_id")
    clicks: dict[str, list[str]] = {}
    for user, item in log.select("user", "item").iter_rows():
        clicks.setdefault(user, []).append(item)
    frame = pl.read_parquet(days / "tomorrow" / "train.parquet").filter(pl.col("label") == 1)
    assert len(frame) > 100
    for row in frame.iter_rows(named=True):
        mine, history = clicks[users[row["user_id"]]], [items[i] for i in row["item_seq"]]
        assert mine[: len(history)] == history and items[row["item_id"]] in mine[len(history) :]


def test_items_keep_features_and_levels_keep_their_bounds(days):
    before, after = (pl.read_parquet(days / day / "item_feature.parquet") for day in ("today", "tomorrow"))
    assert after.head(len(before)).equals(before)
    manifests = [json.loads((days / day / "manifest.json").read_text()) for day in ("today", "tomorrow")]
    for name in ("level_bounds", "numbers", "columns"):
        assert manifests[0][name] == manifests[1][name]
    assert len(manifests[0]["numbers"]["price"]["boundaries"]) == 9
    prices = set(pl.read_csv(days / "tomorrow.csv")["price"].cast(pl.Float32))
    assert set(pl.read_parquet(days / "tomorrow" / "test.parquet")["price"]) <= prices


@given(st.lists(st.text()), st.lists(st.text(), min_size=1))
def test_a_grown_vocabulary_continues_its_beginnings_and_no_other(values, more):
    first = grown(values)
    later = grown([*values, *more], first)
    check_same_numbering({"x": first}, "a", {"x": later}, "b")
    check_same_numbering({"x": later}, "a", {"x": first}, "b")
    other = grown([*more, *values, "other"])
    with pytest.raises(InputError, match="a was numbered otherwise than b: x"):
        check_same_numbering({"x": other}, "a", {"x": later}, "b")
    assert grown(["ab", "c"]) != grown(["a", "bc"])


# Scoring


def test_a_log_prepared_anew_is_refused_and_one_prepared_like_it_is_scored(days):
    with pytest.raises(InputError, match=r"anew/test.parquet was numbered otherwise than .*run: .*--like"):
        predict(days / "run", days / "anew", days / "x.parquet")
    with pytest.raises(InputError, match="item_info.parquet was numbered otherwise than .*run"):
        predict(days / "run", days / "tomorrow", days / "x.parquet", item_info=days / "anew" / "item_info.parquet")
    with pytest.raises(InputError, match="test_labels.parquet was numbered otherwise than .*tomorrow"):
        predict(days / "run", days / "tomorrow", days / "x.parquet", labels=days / "anew" / "test_labels.parquet")
    with pytest.raises(InputError, match="items that are new since training; name its item table with --item-info"):
        predict(days / "run", days / "tomorrow", days / "x.parquet")
    assert not (days / "x.parquet").exists()
    labels, info = days / "tomorrow" / "test_labels.parquet", days / "tomorrow" / "item_info.parquet"
    result = predict(days / "run", days / "tomorrow", days / "x.parquet", labels=labels, item_info=info)
    assert result["rows"] and "auc" in result["metrics"]


def test_original_ids_come_back(days):
    out = days / "named.parquet"
    info = days / "tomorrow" / "item_info.parquet"
    arguments = ["--ckpt", days / "run", "--data", days / "tomorrow", "--item-info", info, "--out", out]
    assert predict_command.main([*map(str, arguments), "--original-ids"]) == 0
    scored, rows = pl.read_parquet(out), pl.read_parquet(days / "tomorrow" / "test.parquet")
    for column in ("item_id", "user_id"):
        names = vocabulary(days / "tomorrow", column)
        assert scored[column].to_list() == [names[number] for number in rows[column]]
    alone = days / "alone.parquet"
    alone.write_bytes((days / "tomorrow" / "test.parquet").read_bytes())
    with pytest.raises(InputError, match="--original-ids: .*vocabularies"):
        predict(days / "run", alone, out, item_info=info, original_ids=True)


def test_files_that_do_not_say_are_taken_with_a_warning(days, capsys):
    table = pq.read_table(days / "today" / "test.parquet")
    pq.write_table(table.replace_schema_metadata(None), days / "silent.parquet")
    predict(days / "run", days / "silent.parquet", days / "y.parquet")
    assert "silent.parquet does not say how its ids were numbered" in capsys.readouterr().out


def test_training_on_files_of_two_preparations_is_refused(days):
    config = load_config(days / "today" / "today.yaml", [f"data.train={days / 'anew' / 'train.parquet'}"])
    with pytest.raises(InputError, match=r"anew/train.parquet was numbered otherwise than .*today/item_info.parquet"):
        load_training_data(config)


# Warm start


def test_known_ids_keep_weights_and_moments_and_new_ones_begin_fresh(days):
    config = load_config(days / "tomorrow" / "tomorrow.yaml", [*SMALL, f"data.cache_dir={days / 'cache'}"])
    data = load_training_data(config)
    mesh = make_mesh()
    items = put_items(data.items.table, mesh, data.config)
    fresh = init_state(data.config, items, mesh)
    run = RunDirectory(days / "run")
    warm = warm_started(fresh, restored(run, mesh), run)
    before = run.read_config()
    _, params, _ = restore_best(days / "run", before, put_items(run.read_items(), mesh, before), mesh)
    known = before.features.table_sizes
    predicting = make_predicting(data.config, mesh)
    for path, ours in jax.tree_util.tree_leaves_with_path(predicting(warm)):
        name, theirs, new = path[-1].key, params, predicting(fresh)
        for key in path:
            theirs, new = theirs[key.key], new[key.key]
        rows = known.get(name, len(ours))
        np.testing.assert_array_equal(ours[:rows], theirs[:rows])
        np.testing.assert_array_equal(ours[rows:], new[rows:])
    assert warm.params["embedding"]["item_id"].shape[0] > known["item_id"]
    moments = [x for x in jax.tree.leaves(warm.opt_state) if x.ndim == 2]
    assert moments and all(np.abs(x).max() > 0 for x in moments) and int(warm.step) == 0


def test_another_model_is_refused_before_anything_is_written(days, capsys):
    overrides = [*SMALL, "model.embedding_dim=8", f"data.cache_dir={days / 'cache'}"]
    config = load_config(days / "tomorrow" / "tomorrow.yaml", overrides)
    with pytest.raises(InputError, match="its model is another one .*there, .*here"):
        train(config, days / "other", init_from=days / "run")
    config = load_config(days / "anew" / "anew.yaml", [*SMALL, f"data.cache_dir={days / 'cache'}"])
    with pytest.raises(InputError, match="item_info.parquet was numbered otherwise than .*run"):
        train(config, days / "other2", init_from=days / "run")
    assert not (days / "other").exists() and not (days / "other2").exists()


@pytest.mark.parametrize("place", ["side", "item_features"])
def test_features_in_another_order_are_another_model(days, place):
    """Their vectors stand side by side, so the shapes of all weights are the same."""
    config = load_config(days / "tomorrow" / "tomorrow.yaml", [*SMALL, f"data.cache_dir={days / 'cache'}"])
    more = [NumericFeature(name="price_level")] if place == "item_features" else []
    turned = config.features.model_copy(update={place: (*reversed(getattr(config.features, place)), *more)})
    with pytest.raises(InputError, match=f"features.{place} . is .* there and .* here"):
        train(config.model_copy(update={"features": turned}), days / "other3", init_from=days / "run")
    assert not (days / "other3").exists()


def test_prepared_like_a_run_its_config_has_the_order_and_the_history_of_that_run(tmp_path):
    write_day(tmp_path, "today", TODAY, 1)
    log = pl.read_csv(tmp_path / "today.csv").with_columns(pl.lit("x").alias("net"))
    log.write_csv(tmp_path / "today.csv")
    today = prepare(tmp_path, "today", "--side", "net,device")
    kept = log.group_by("user", maintain_order=True).head(5)  # shorter histories
    kept.write_csv(tmp_path / "tomorrow.csv")
    (tmp_path / "tomorrow_items.csv").write_bytes((tmp_path / "today_items.csv").read_bytes())
    tomorrow = prepare(tmp_path, "tomorrow", "--side", "device,net", "--like", str(today))
    before, after = (load_config(folder / f"{folder.name}.yaml") for folder in (today, tomorrow))
    assert [f.name for f in after.features.side] == [f.name for f in before.features.side]
    assert after.model.max_history == before.model.max_history > 4


def test_a_model_that_goes_on_is_given_less_patience(days):
    anew, goes_on = (load_config(days / name / f"{name}.yaml").train for name in ("today", "tomorrow"))
    assert (anew.patience, goes_on.patience) == (2, 1)
    assert goes_on == anew.model_copy(update={"patience": 1})


def test_codes_of_known_items_stay_those_that_the_weights_were_learned_for(tmp_path):
    rng, features = np.random.default_rng(0), Features(item_features=(CodesFeature(**CODES),))

    def load(name, vectors, learned=None):
        padded = pa.table({"item_id": np.arange(len(vectors)), "v": pa.array(list(vectors), pa.list_(pa.float32()))})
        pq.write_table(padded, tmp_path / name)
        return load_items(tmp_path / name, features, tmp_path / "cache", learned=learned)

    vectors = np.concatenate([np.zeros((1, 4)), rng.normal(size=(60, 4))]).astype(np.float32)
    today = load("a.parquet", vectors)
    more = np.concatenate([vectors, vectors[5:6], np.zeros((1, 4)), rng.normal(3, 1, (60, 4))]).astype(np.float32)
    tomorrow = load("b.parquet", more, (today.table, today.codebooks))
    anew = load("b.parquet", more)
    assert (anew.table["c"][:61] != today.table["c"]).any()
    np.testing.assert_array_equal(tomorrow.table["c"][:61], today.table["c"])
    np.testing.assert_array_equal(tomorrow.table["c"][61:63], [today.table["c"][5], [0, 0]])
    np.testing.assert_array_equal(tomorrow.codebooks["c"]["centroids"], today.codebooks["c"]["centroids"])
    empty = load("c.parquet", np.concatenate([vectors, np.zeros((2, 4), np.float32)]), (today.table, today.codebooks))
    assert not empty.table["c"][61:].any()


def test_an_item_table_of_another_day_is_not_that_of_the_rows(days, tmp_path):
    """Both go on with the run's numbers, each with new items of its own."""
    write_day(tmp_path, "third", [*TODAY, "c001"], 3)
    third = prepare(tmp_path, "third", "--like", str(days / "run"))
    with pytest.raises(InputError, match="item_info.parquet was numbered otherwise than .*test.parquet"):
        predict(days / "run", days / "tomorrow", tmp_path / "x.csv", item_info=third / "item_info.parquet")


def test_like_a_run_whose_folder_was_prepared_anew_since_is_refused(days, tmp_path):
    shutil.copytree(days / "run", tmp_path / "run")
    text = (tmp_path / "run" / "config.yaml").read_text().replace(f"{days / 'today'}/", f"{days / 'anew'}/")
    (tmp_path / "run" / "config.yaml").write_text(text)
    write_day(tmp_path, "third", TODAY, 3)
    with pytest.raises(InputError, match="anew was numbered otherwise than .*run"):
        prepare(tmp_path, "third", "--like", str(tmp_path / "run"))


@pytest.mark.parametrize("kind", [pa.float64(), pa.string()])
def test_ids_that_are_no_numbers_have_no_original(days, tmp_path, kind):
    table = pq.read_table(days / "today" / "test.parquet")
    at = table.schema.get_field_index("user_id")
    pq.write_table(table.set_column(at, "user_id", table["user_id"].cast(kind)), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="column user_id of .*rows.parquet is of type .*whole numbers"):
        predict(days / "run", tmp_path / "rows.parquet", tmp_path / "x.csv", original_ids=True)


def test_labels_of_other_items_are_refused_though_they_have_no_id(days, tmp_path):
    rows = pq.read_table(days / "today" / "test.parquet")
    labels = pq.read_table(days / "today" / "test_labels.parquet")
    of_items = pa.table({"item_id": rows["item_id"], "label": labels["label"]})
    pq.write_table(of_items, tmp_path / "labels.parquet")
    predict(days / "run", days / "today", tmp_path / "x.csv", labels=tmp_path / "labels.parquet")
    pq.write_table(of_items.take(np.arange(len(of_items))[::-1]), tmp_path / "labels.parquet")
    with pytest.raises(InputError, match="its item_id column is not that of the scored file"):
        predict(days / "run", days / "today", tmp_path / "x.csv", labels=tmp_path / "labels.parquet")


def test_labels_of_another_draw_of_negatives_are_refused_though_their_ids_are_the_same(days, tmp_path):
    for seed in ("1", "2"):
        write_day(tmp_path, seed, TODAY, 1)
        prepare(tmp_path, seed, "--split", "time", "--seed", seed)
    labels = [pq.read_table(tmp_path / seed / "test_labels.parquet") for seed in ("1", "2")]
    assert labels[0].select(["ID", "user_id"]).equals(labels[1].select(["ID", "user_id"]))
    with pytest.raises(InputError, match="its item_id column is not that of the scored file"):
        read_labels(
            [tmp_path / "1" / "test.parquet"],
            "label",
            tmp_path / "2" / "test_labels.parquet",
            ("ID", "user_id", "item_id"),
        )


def test_other_users_are_refused_by_a_model_that_learned_of_each_and_by_no_other(tmp_path):
    for name, renamed in (("mine", "u"), ("others", "v")):
        write_day(tmp_path, name, TODAY, 1)
        log = pl.read_csv(tmp_path / f"{name}.csv").with_columns(pl.col("user").str.replace("u", renamed))
        log.write_csv(tmp_path / f"{name}.csv")
        prepare(tmp_path, name, "--split", "time")
    mine, others = tmp_path / "mine", tmp_path / "others"
    config = load_config(mine / "mine.yaml", [*SMALL, "train.epochs=1", f"data.cache_dir={tmp_path / 'cache'}"])
    train(config, tmp_path / "run")
    predict(tmp_path / "run", others, tmp_path / "x.csv", original_ids=True)
    assert pl.read_csv(tmp_path / "x.csv")["user_id"].str.starts_with("v").all()

    side = *config.features.side, CategoricalFeature(name="user_id", vocab_size=61)
    features = config.features.model_copy(update={"side": side})
    train(config.model_copy(update={"features": features}), tmp_path / "of_users")
    predict(tmp_path / "of_users", mine, tmp_path / "x.csv")
    with pytest.raises(
        InputError, match="others/test.parquet was numbered otherwise than .*: user_id 60 and 60 values"
    ):
        predict(tmp_path / "of_users", others, tmp_path / "x.csv")

    shutil.copy(mine / "vocabularies" / "user_id.parquet", others / "vocabularies")
    with pytest.raises(InputError, match="user_id.parquet is not the vocabulary that .*others/test.parquet was"):
        predict(tmp_path / "run", others, tmp_path / "x.csv", original_ids=True)


def test_rows_to_calibrate_with_need_a_kind_of_calibration(days, tmp_path):
    with pytest.raises(InputError, match="--valid .* is for --calibrate"):
        predict(days / "run", days / "today", tmp_path / "x.csv", valid=days / "today" / "valid.parquet")


def test_a_best_checkpoint_that_was_not_copied_is_missed(days, tmp_path, capsys):
    shutil.copytree(days / "run", tmp_path / "run")
    with RunDirectory(tmp_path / "run").checkpoints() as checkpoints:
        best = checkpoints.best_step
        (tmp_path / "run" / "checkpoints" / str(best)).rename(tmp_path / "run" / "checkpoints" / str(best + 10**6))
    predict(days / "run", days / "today", tmp_path / "x.csv")
    assert "has no checkpoint" not in capsys.readouterr().out
    predict(tmp_path / "run", days / "today", tmp_path / "x.csv")
    assert f"has no checkpoint {best:,}, that of the best validation" in " ".join(capsys.readouterr().out.split())


def test_an_export_names_the_items_of_the_newer_table(days, tmp_path):
    pytest.importorskip("onnx", reason="mmctr export needs ONNX: pip install '.[serve]'")
    info = days / "tomorrow" / "item_info.parquet"
    export(days / "run", tmp_path / "export", item_info=info, original_ids=True)
    names = json.loads((tmp_path / "export" / "item_ids.json").read_text())
    assert names[1:] == list(vocabulary(days / "tomorrow", "item_id").values())
    with pytest.raises(InputError, match="anew/item_info.parquet was numbered otherwise"):
        export(days / "run", tmp_path / "other", item_info=days / "anew" / "item_info.parquet", original_ids=True)


@pytest.mark.slow
def test_stopped_before_its_first_checkpoint_a_run_still_begins_with_the_weights(days, monkeypatch, capsys):
    from mmctr_jax.training import loop

    def stop(self, interrupt):
        raise KeyboardInterrupt

    overrides = [*SMALL, f"data.cache_dir={days / 'cache'}"]
    config = load_config(days / "tomorrow" / "tomorrow.yaml", overrides)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop._Trainer, "run", stop)
        train(config, days / "stopped", init_from=days / "run")
    assert not any(path.name.isdigit() for path in (days / "stopped" / "checkpoints").glob("*"))
    capsys.readouterr()
    train(config, days / "stopped", resume=True)
    assert f"Beginning with the weights of {days / 'run'}" in capsys.readouterr().out


def test_a_run_to_begin_with_is_looked_at_before_anything_is_written(days, tmp_path, monkeypatch, capsys):
    from mmctr_jax.training import loop

    config = load_config(days / "tomorrow" / "tomorrow.yaml", [*SMALL, f"data.cache_dir={days / 'cache'}"])
    before, run = shutil.copytree(days / "run", tmp_path / "before"), tmp_path / "run"
    checkpoints = before / "checkpoints"
    with RunDirectory(before).checkpoints() as found:
        best, steps = found.best_step, found.steps
    shutil.rmtree(checkpoints)
    with pytest.raises(InputError, match="--init-from .*before has no checkpoint"):
        train(config, run, init_from=before)
    assert not run.exists()

    shutil.copytree(days / "run" / "checkpoints" / str(steps[0]), checkpoints / str(steps[0]))
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop._Trainer, "run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patched.chdir(tmp_path)
        train(config, run, init_from=Path("before"))
    said = capsys.readouterr().out
    assert f"Beginning with the weights of before, step {steps[0]:,}" in said
    assert (f"has no checkpoint {best:,}, that of the best validation" in said) == (best != steps[0])
    assert json.loads((run / "metadata.json").read_text())["init_from"] == str(before)
    with pytest.raises(InputError, match="run was begun with --init-from .*before and has no checkpoint yet; remove"):
        train(config, run, resume=True, init_from=days / "run")


def test_a_column_of_the_row_and_one_of_the_item_are_not_one_feature(tmp_path):
    write_day(tmp_path, "today", TODAY, 1)
    prices = pl.read_csv(tmp_path / "today_items.csv").with_columns(price=pl.int_range(pl.len()))
    prices.write_csv(tmp_path / "today_items.csv")
    with pytest.raises(InputError, match="Column price is a feature of rows and of items; rename it"):
        prepare(tmp_path, "today", "--item-numeric", "price")


@pytest.mark.slow
def test_a_daily_job_of_three_days(days, tmp_path):
    """prepare --like, train --init-from, predict --original-ids: as docs/daily.md has it."""
    write_day(tmp_path, "third", [*LATER, "c001", "c002"], 3)
    third = prepare(tmp_path, "third", "--like", str(days / "tomorrow"))
    cache = f"data.cache_dir={tmp_path / 'cache'}"
    for day, before, run in (
        (days / "tomorrow", days / "run", tmp_path / "run2"),
        (third, tmp_path / "run2", tmp_path / "run3"),
    ):
        config = str(day / f"{day.name}.yaml")
        arguments = ["--config", config, *SMALL, cache, "--run-dir", str(run), "--init-from", str(before)]
        assert train_command.main(arguments) == 0
    assert json.loads((tmp_path / "run3" / "metadata.json").read_text())["init_from"] == str(tmp_path / "run2")
    assert len(numbering_of(third / "item_info.parquet")["item_id"]) == 3  # it grew twice
    assert predict_command.main(["--ckpt", str(tmp_path / "run3"), "--original-ids"]) == 0
    scores = pl.read_parquet(tmp_path / "run3" / "predictions.parquet")
    assert set(scores["item_id"]) <= {*TODAY, *LATER, "c001", "c002"} and scores["score"].is_finite().all()


def test_new_items_get_vectors_of_the_same_fit(tmp_path, monkeypatch):
    for module in (writing, item_info):
        monkeypatch.setattr(module, "_ROWS", 7)
    words = [f"w{i}" for i in range(12)]
    rng = np.random.default_rng(0)
    titles = {item: " ".join(rng.choice(words, 4)) for item in [*TODAY, *LATER]}
    titles[LATER[0]] = titles[TODAY[1]]  # a new item with the title of a known one
    folders = {}
    for day, items in (("today", TODAY), ("tomorrow", LATER)):
        write_day(tmp_path, day, items, 1 + len(folders))
        frame = pl.read_csv(tmp_path / f"{day}_items.csv").with_columns(title=pl.Series([titles[i] for i in items]))
        frame.write_csv(tmp_path / f"{day}_items.csv")
        like = ["--like", str(folders["today"])] if folders else []
        folders[day] = prepare(tmp_path, day, "--text", "title", *like)
        if not like:
            embed(folders[day], dim=5)
    before = {row["item_id"]: row["item_emb_d5"] for row in read(folders["today"])}
    with pytest.raises(InputError, match="vectors of items that were known before would change"):
        embed(folders["tomorrow"], dim=5, whiten=True)
    embed(folders["tomorrow"], dim=5)
    after = {row["item_id"]: row["item_emb_d5"] for row in read(folders["tomorrow"])}
    assert {item: after[item] for item in before} == before
    number = {value: id for id, value in vocabulary(folders["tomorrow"], "item_id").items()}
    assert number[LATER[0]] > max(before)
    np.testing.assert_allclose(after[number[LATER[0]]], before[number[TODAY[1]]], atol=1e-5)


def test_known_vectors_are_kept_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(item_info, "_ROWS", 2)
    before = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    ids = np.array([0, 2, 1, 3, 4])
    pq.write_table(pa.table({"item_id": ids}), path := tmp_path / "item_info.parquet")
    info = ItemInfo(path, path, frozenset({"vector"}), ids, np.array([-1, 1, 0, 2, 3]), "vector", before)
    again = np.concatenate([before * np.float32(1 + 1e-5), np.ones((1, 4), np.float32)])
    info.write(again)
    found = {row["item_id"]: row["vector"] for row in read(tmp_path)}
    assert [found[item] for item in (1, 2, 3)] == before.tolist() and found[4] == [1] * 4 and found[0] == [0] * 4
    with pytest.raises(InputError, match="vectors of items that were known before would change"):
        info.write(again * np.float32(1.1))
    kept = pq.read_table(path)
    pq.write_table(kept.take([0, 2, 1, 3, 4]), path)
    with pytest.raises(InputError, match="was changed meanwhile"):
        info.write(again)
    assert pq.read_table(path)["item_id"].to_pylist() == [0, 1, 2, 3, 4]


def read(folder: Path) -> list[dict]:
    return pq.read_table(folder / "item_info.parquet").to_pylist()


# Columns


def test_prices_are_no_categories_in_silence(tmp_path):
    write_day(tmp_path, "today", TODAY, 1)
    with pytest.raises(InputError, match=r"--side price holds .* different numbers, such as .*; say --numeric price"):
        prepare_command.main(
            ["interactions", str(tmp_path / "today.csv"), "--side", "price", "--out", str(tmp_path / "o")]
        )


def test_users_that_are_not_known_are_nobodys_group(tmp_path):
    from mmctr_jax.data.parquet import read_keys

    pq.write_table(pa.table({"user": ["a", None, "a", None, "b"]}), tmp_path / "x.parquet")
    codes = read_keys([tmp_path / "x.parquet"], "user")
    assert codes[0] == codes[2] and len(set(codes.tolist())) == 4
