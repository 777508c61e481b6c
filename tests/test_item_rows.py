"""A table of fewer rows than items: the items that training names most have one each, the others none."""

from collections import Counter

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batches import features_of_many, make_batch, make_items, randomised, table_of_many
from marks import slow
from synthetic import ITEMS, QUICK, SYSTEMS, merged, raw_config, resolved_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.data.admitted import rows_of_items
from mmctr_jax.data.cache import Split
from mmctr_jax.devices.sharding import make_mesh, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.prediction.predictor import Predictor, restore_best
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.data import load_training_data
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import abstract_state, init_state, make_predict_step, make_train_step
from mmctr_jax.training.warm_start import restored, warm_started

ROWS = 7


@pytest.mark.parametrize("system", [slow("mmctr"), "matching", "neighbours"])
def test_a_model_equals_one_whose_other_items_have_zeros_in_its_table(system):
    change = SYSTEMS.get(system, {})
    few, plain = resolved_config(merged(change, {"features": {"item_rows": ROWS}})), resolved_config(change)
    rng = np.random.default_rng(0)
    items, batch, mesh = make_items(rng), make_batch(rng), make_mesh(jax.devices()[:1])
    rows = np.zeros(ITEMS, np.int32)
    rows[1 + rng.permutation(ITEMS - 1)[: ROWS - 1]] = np.arange(1, ROWS)
    state = init_state(few, items | {"item_id": rows}, mesh)
    params = randomised(state.params, rng)
    table = np.asarray(params["embedding"]["item_id"])
    assert table.shape[0] == ROWS
    each = np.where(rows[:, None] > 0, table[rows], 0)
    whole = params | {"embedding": params["embedding"] | {"item_id": each}}
    found = make_predict_step(few, mesh)(params, state.batch_stats, batch, items | {"item_id": rows})
    neighbours = np.where(rows[items["neighbours"]] > 0, items["neighbours"], 0)  # the mean is of those that have one
    expected = make_predict_step(plain, mesh)(whole, state.batch_stats, batch, items | {"neighbours": neighbours})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def split(histories: list[list[int]], targets: list[int]) -> Split:
    offsets = np.cumsum([0, *map(len, histories)])
    values = np.array([id for history in histories for id in history], np.int32)
    return Split(values, offsets, np.array(targets, np.int32), {}, None, "0" * 64)


def test_rows_go_to_the_items_that_are_named_most_and_stay_theirs(tmp_path):
    rng = np.random.default_rng(0)
    histories = [list(1 + rng.geometric(0.2, rng.integers(6)) % 20) for _ in range(60)]
    targets = list(1 + rng.geometric(0.2, 60) % 20)
    named = Counter(id for history in histories for id in history) + Counter(targets)
    ranked = sorted(named, key=lambda id: (-named[id], id))
    rows = rows_of_items(split(histories, targets), 30, 9, tmp_path)
    assert {int(id): int(rows[id]) for id in np.flatnonzero(rows)} == {id: i + 1 for i, id in enumerate(ranked[:8])}

    learned = np.zeros(10, np.int32)
    learned[[3, ranked[2] if ranked[2] < 10 else 4]] = 1, 2
    grown = rows_of_items(split(histories, targets), 30, 6, tmp_path, learned)
    np.testing.assert_array_equal(grown[:10][learned > 0], learned[learned > 0])
    others = [id for id in ranked if id >= 10 or not learned[id]]
    assert [int(np.flatnonzero(grown == row)[0]) for row in (3, 4, 5)] == others[:3]
    assert np.count_nonzero(grown) == 5


def test_items_that_nobody_names_have_no_row_though_there_is_room(tmp_path):
    rows = rows_of_items(split([[1, 2], []], [2, 4]), 9, 100, tmp_path)
    assert rows.tolist() == [0, 2, 1, 0, 3, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def day(tmp_path_factory):
    folder = tmp_path_factory.mktemp("item_rows")
    data = write_dataset(folder / "data")
    train(parse_config(config(data, ROWS)), folder / "run")
    return folder


def config(data, rows, **change):
    return merged(merged(raw_config(data), QUICK | {"features": {"item_rows": rows}, "train": {"epochs": 1}}), change)


def test_a_run_goes_on_with_the_rows_that_it_began_with(day, tmp_path):
    """Which are not those that its own clicks would give."""
    before, data = RunDirectory(day / "run").read_items()["item_id"], write_dataset(tmp_path / "data", seed=1)
    assert before.shape == (ITEMS,) and sorted(before[before > 0]) == list(range(1, ROWS))
    raw = config(data, ROWS, train={"epochs": 2})
    train(parse_config(raw), tmp_path / "part", init_from=day / "run", end_early=lambda n, auc: True)
    found = load_training_data(parse_config(raw), RunDirectory(tmp_path / "part").read_items()).items.table["item_id"]
    np.testing.assert_array_equal(found, before)
    assert (load_training_data(parse_config(raw)).items.table["item_id"] != before).any()


@pytest.mark.slow
def test_a_run_that_goes_on_cannot_be_given_rows(tmp_path):
    data = write_dataset(tmp_path / "data")
    train(parse_config(config(data, None)), tmp_path / "run")
    with pytest.raises(InputError, match="item_rows"):
        train(parse_config(config(data, ROWS)), tmp_path / "run", resume=True)


def test_new_items_have_no_row(day, tmp_path):
    data, table = day / "data", pq.read_table(day / "data" / "item_info.parquet")
    more = table.slice(5, 1).set_column(0, "item_id", [[ITEMS]])
    pq.write_table(pa.concat_tables([table, more.cast(table.schema)]), tmp_path / "i")
    predictor = Predictor.load(day / "run", tmp_path / "i")
    assert predictor.table["item_id"].tolist() == [*RunDirectory(day / "run").read_items()["item_id"], 0]
    np.testing.assert_allclose(
        predictor.logits(data / "valid.parquet"), Predictor.load(day / "run").logits(data / "valid.parquet"), rtol=1e-5
    )


def test_a_warm_start_keeps_rows_and_fills_what_is_left(day, tmp_path):
    data = write_dataset(tmp_path / "data", seed=0)
    config_now = parse_config(config(data, ROWS + 3))
    run, mesh = RunDirectory(day / "run"), make_mesh()
    learned = run.read_items()
    data = load_training_data(config_now, learned=(learned, {}))
    rows = data.items.table["item_id"]
    np.testing.assert_array_equal(rows[learned["item_id"] > 0], learned["item_id"][learned["item_id"] > 0])
    assert sorted(rows[rows > 0]) == list(range(1, ROWS + 3))
    fresh = init_state(data.config, put_items(data.items.table, mesh, data.config), mesh)
    warm = warm_started(fresh, restored(run, mesh), run).params["embedding"]["item_id"]
    before = run.read_config()
    _, params, _ = restore_best(day / "run", before, put_items(learned, mesh, before), mesh)
    np.testing.assert_array_equal(warm[:ROWS], params["embedding"]["item_id"])
    np.testing.assert_array_equal(warm[ROWS:], fresh.params["embedding"]["item_id"][ROWS:])


def test_a_row_that_no_item_had_begins_fresh(tmp_path):
    data = write_dataset(tmp_path / "data")
    raw = config(data, ITEMS + 5, train={"weight_decay": {"tables": 0.5}})
    train(parse_config(raw), tmp_path / "run")
    run, mesh = RunDirectory(tmp_path / "run"), make_mesh()
    used = 1 + run.read_items()["item_id"].max()
    assert used < ITEMS + 5
    later = load_training_data(parse_config(raw), learned=(run.read_items(), {}))
    fresh = init_state(later.config, put_items(later.items.table, mesh, later.config), mesh)
    warm = warm_started(fresh, restored(run, mesh), run).params["embedding"]["item_id"]
    np.testing.assert_array_equal(warm[used:], fresh.params["embedding"]["item_id"][used:])
    assert np.abs(warm[1:used] - fresh.params["embedding"]["item_id"][1:used]).max(axis=1).min() > 0


@pytest.mark.parametrize(
    ("features", "words"),
    [({"item_rows": None}, "item_rows is 7 there and nothing here"), ({"item_rows": 5}, "its model is another one")],
)
def test_a_warm_start_with_other_rows_is_refused(day, tmp_path, features, words):
    raw = merged(config(day / "data", ROWS), {"features": features})
    with pytest.raises(InputError, match=words):
        train(parse_config(raw), tmp_path / "run", init_from=day / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_hashed_ids_of_another_number_of_rows_are_another_model(tmp_path):
    data = write_dataset(tmp_path / "data")
    raw = config(data, None, features={"item_hash": 5})
    train(parse_config(raw), tmp_path / "run")
    with pytest.raises(InputError, match="item_hash is 5 there and 9 here"):
        train(parse_config(merged(raw, {"features": {"item_hash": 9}})), tmp_path / "more", init_from=tmp_path / "run")


def test_hashed_and_chosen_rows_exclude_each_other():
    with pytest.raises(InputError, match="item_hash and features.item_rows"):
        resolved_config({"features": {"item_hash": 9, "item_rows": 9}})


@pytest.mark.slow
def test_days_with_room_for_new_items_share_their_programs():
    def program(items: int) -> str:
        features = features_of_many(items) | {"item_rows": 7000}
        config, mesh = (
            resolved_config(merged(SYSTEMS["matching"], {"features": features})),
            make_mesh(jax.devices()[:1]),
        )
        table = put_items(table_of_many(items) | {"item_id": np.zeros(items, np.int32)}, mesh, config)
        batch, rate = make_batch(np.random.default_rng(0)), jax.ShapeDtypeStruct((), np.float32)
        return make_train_step(config, mesh).lower(abstract_state(config, table, mesh), batch, table, rate).as_text()

    assert program(6000) == program(6100)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"tables": "adam"}, {"tables": "adam", "sharding": "fsdp"}], ids=str)
def test_chosen_rows_train_whatever_steps_their_table(day, tmp_path, settings):
    train(parse_config(config(day / "data", ROWS, train=settings)), tmp_path / "run")
    valid = day / "data" / "valid.parquet"
    scores = [Predictor.load(run).logits(valid) for run in (day / "run", tmp_path / "run")]
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-4)
