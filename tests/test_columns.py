"""Every kind of column, wherever it may stand: read as it is, used by the model, exported, asked for in requests."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import slow
from sklearn.metrics import roc_auc_score
from synthetic import ITEMS, SYSTEMS, item_table, items_of, merged, raw_config, samples

from mmctr_jax.config import parse_config
from mmctr_jax.data.cache import load_split
from mmctr_jax.data.loader import eval_batches
from mmctr_jax.data.parquet import Column
from mmctr_jax.errors import InputError
from mmctr_jax.features import Features, NumericFeature, TagsFeature
from mmctr_jax.features.item_list import ItemsFeature
from mmctr_jax.hashing import hash_id
from mmctr_jax.models.embedding import EmbeddingLayer
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import loss_of_all_labels, model_of

COLUMNS = {
    "side": [
        {"kind": "numeric", "name": "price", "log": True, "mean": 2.0, "std": 0.5, "boundaries": [1.0, 5.0, 20.0]},
        {"kind": "tags", "name": "interests", "vocab_size": 9, "length": 3},
        {"kind": "items", "name": "bought", "length": 4},
        {"name": "city", "hash": 17},
        {"name": "user_id", "vocab_size": 20},
    ],
    "clicks": [
        {"name": "action", "vocab_size": 4},
        {"kind": "numeric", "name": "gap", "log": True, "mean": 1.0, "std": 2.0, "boundaries": [1.0, 10.0]},
    ],
    "item_features": [
        {"kind": "tags", "name": "item_tags", "length": 2},
        {"kind": "embedding", "name": "item_emb_d8", "dim": 8},
        {"kind": "categorical", "name": "brand", "hash": 7},
        {"kind": "numeric", "name": "year", "mean": 1990.0, "std": 10.0},
    ],
}


def with_columns(rng, rows):
    """The usual rows with every kind of column, and clicks that depend on price, interests, actions and city."""
    table = samples(rng, rows)
    histories = [[0] * (i % 3) + h for i, h in enumerate(table["item_seq"].to_pylist())]  # padding, that counts nowhere
    at = table.schema.get_field_index("item_seq")
    table = table.set_column(at, "item_seq", pa.array(histories, pa.list_(pa.int64())))
    price = np.where(rng.random(rows) < 0.2, np.nan, rng.lognormal(2, 1, rows))
    columns = {
        "price": pa.array(price, from_pandas=True),
        "interests": [rng.integers(1, 9, rng.integers(0, 6)).tolist() for _ in histories],
        "bought": [h[::2] for h in histories],
        "city": [[None, "Oslo", "Łódź", "7"][k] for k in rng.integers(0, 4, rows)],
        "action": [rng.integers(0, 4, len(h)).tolist() for h in histories],
    }
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    gaps = [[None if rng.random() < 0.1 else float(g) for g in rng.exponential(10, len(h))] for h in histories]
    return table.append_column("gap", pa.array(gaps, pa.list_(pa.float64())))


def write(folder: Path, rows: int = 200, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    items = item_table(rng)
    items = items.append_column("brand", pa.array([None] + [f"b{i % 5}" for i in range(1, ITEMS)]))
    items = items.append_column("year", pa.array([None, None] + [1950 + i for i in range(2, ITEMS)]))
    pq.write_table(items, folder / "item_info.parquet")
    for name, count in (("train", rows), ("valid", 60), ("test", 40)):
        pq.write_table(with_columns(rng, count), folder / f"{name}.parquet")
    return folder


def config_of(data, change=None):
    raw = merged(merged(raw_config(data), {"features": COLUMNS, "train": {"epochs": 1}}), change or {})
    return parse_config(merged(raw, {"model": raw["model"] | {"embedding_init_std": 0.3}}))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("columns") / "data")


@pytest.fixture(scope="module", params=["mmctr", "matching"])
def run(request, data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "run"
    train(config_of(data, SYSTEMS.get(request.param)), directory)
    return directory


def resolved(data):
    config = config_of(data)
    return config.with_features(items_of(config).features)


def test_a_batch_holds_what_the_file_says(data):
    features = resolved(data).features
    split = load_split(data / "test.parquet", features, None, with_labels=True)
    rows = pq.read_table(data / "test.parquet").to_pylist()
    (batch,) = eval_batches(split, np.arange(40), batch_size=40, lengths=(10,))
    for i, row in enumerate(rows):
        kept = [k for k, id in enumerate(row["item_seq"]) if id][-10:]
        of_clicks = {name: np.array([row[name][k] for k in kept], float) for name in ("action", "gap")}
        for name, expected in of_clicks.items():
            found = batch["clicks"][name][i]
            np.testing.assert_allclose(found[10 - len(kept) :], expected, rtol=1e-6)
            assert not found[: 10 - len(kept)].any()
        side = {name: values[i] for name, values in batch["side"].items()}
        np.testing.assert_allclose(side["price"], np.nan if row["price"] is None else row["price"], rtol=1e-6)
        assert [k for k in side["interests"] if k] == row["interests"][:3]
        assert sorted(k for k in side["bought"] if k) == sorted([k for k in row["bought"] if k][-4:])
        assert side["city"] == (0 if row["city"] is None else hash_id(row["city"], 17))
        assert side["user_id"] == row["user_id"]


def embedded(feature, values, ids=None, boundaries_table=None):
    """What a feature becomes, with a table whose row i is full of i."""

    class Layer:
        dtype = jnp.float32

        def lookup(self, name, places):
            return jnp.where((places != 0)[..., None], places[..., None] * jnp.ones(2), 0)

    return np.asarray(feature.embed(Layer(), jnp.asarray(values), ids))


def test_a_number_by_hand():
    f = NumericFeature(name="x", mean=1.0, std=2.0, boundaries=(0.0, 3.0))
    found = embedded(f, np.array([3.0, np.nan, 3.5, -1.0, 1e9], np.float32))
    expected = [[1, 0, 2, 2], [0, 1, 0, 0], [1.25, 0, 3, 3], [-1, 0, 1, 1], [10, 0, 3, 3]]
    np.testing.assert_allclose(found, expected)
    assert f.width(2) == 4 and f.table_size == 4
    log = NumericFeature(name="x", log=True)
    np.testing.assert_allclose(embedded(log, np.float32([np.e - 1, -(np.e - 1)]))[:, 0], [1, -1], rtol=1e-6)
    assert not embedded(f, np.float32([5.0, np.nan]), ids=jnp.array([0, 0])).any()  # padding, whatever the table says


@pytest.mark.slow
@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)), min_size=1), st.integers(0, 30))
def test_ranges_agree_with_counting(numbers, seed):
    bounds = np.unique(np.random.default_rng(seed).normal(0, 1e3, 5).round(2))
    f = NumericFeature(name="x", boundaries=tuple(bounds.tolist()))
    places = embedded(f, np.array([np.nan if x is None else x for x in numbers], np.float32))[:, 2]
    as_float32 = bounds.astype(np.float32)
    assert places.tolist() == [0 if x is None else 1 + sum(np.float32(x) > b for b in as_float32) for x in numbers]


@settings(deadline=None)
@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1), st.integers(2, 1000))
def test_integers_and_their_digits_are_hashed_alike_into_the_vocabulary(values, size):
    as_text = pa.array([None if v is None else str(v) for v in values], pa.string())
    found, also = (Column(Path("f"), "c", 0, array).hashed(size) for array in (pa.array(values, pa.int64()), as_text))
    assert found.tolist() == also.tolist()
    assert all((id == 0) == (v is None) and 0 <= id < size for id, v in zip(found, values, strict=True))


def test_a_hashed_value_may_be_written_otherwise():
    assert hash_id("108.0", 1000) == hash_id(108, 1000) != hash_id("108.5", 1000)
    assert hash_id("True", 1000) == hash_id("TRUE", 1000) == hash_id("true", 1000) != hash_id("truE", 1000)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 8), max_size=6), min_size=1), st.integers(1, 5))
def test_lists_of_rows_keep_the_first_or_the_last(lists, length):
    column = Column(Path("f"), "c", 0, pa.array(lists, pa.list_(pa.int64())))
    real = [[id for id in ids if id] for ids in lists]
    tags = TagsFeature(name="c", vocab_size=9, length=length).read_rows(column)
    items = ItemsFeature(name="c", length=length, num_items=9).read_rows(column)
    assert [[int(id) for id in row if id] for row in tags] == [ids[:length] for ids in real]
    assert [[int(id) for id in row if id] for row in items] == [ids[::-1][:length] for ids in real]


@pytest.mark.slow
def test_a_second_history_is_the_mean_of_the_items_vectors(data):
    config = resolved(data)
    layer = EmbeddingLayer(config.features, config.model, jnp.float32)
    split = load_split(data / "test.parquet", config.features, None, with_labels=True)
    (batch,) = eval_batches(split, np.arange(40), batch_size=40, lengths=(10,))
    items = {name: jnp.asarray(values) for name, values in items_of(config).table.items()}
    variables = layer.init(jax.random.PRNGKey(0), batch, items, False)
    found = layer.apply(variables, batch, items, False)
    D = config.features.item_width(4)
    assert found.side.shape == (40, config.features.row_width(4)) and found.target.shape == (40, D + 4 + 6)
    start = (2 + 4) + 4  # price, interests
    vector_of = {}
    for item in range(1, ITEMS):
        vector_of[item] = np.asarray(
            layer.apply(variables, batch | {"item": np.full(40, item)}, items, False).target[0, :D]
        )
    for i, ids in enumerate(batch["side"]["bought"]):
        expected = np.mean([vector_of[id] for id in ids if id] or [np.zeros(D)], axis=0)
        np.testing.assert_allclose(found.side[i, start : start + D], expected, atol=1e-6)
    assert not found.target[:, D:].any() and not found.history[batch["history"] == 0].any()


CHANGED = {
    "price": lambda v: v + 1,
    "interests": lambda v: (v + 1) % 9,
    "bought": lambda v: (v + 1) % ITEMS,
    "city": lambda v: (v + 1) % 17,
    "user_id": lambda v: (v + 1) % 20,
    "action": lambda v: (v + 1) % 4,
    "gap": lambda v: v + 3,
}


def test_every_column_matters(run, data):
    predictor = Predictor.load(run)
    split = load_split(data / "test.parquet", predictor.config.features, None, with_labels=False)
    before = predictor.score_split(split)
    for name, change in CHANGED.items():
        field = "side" if name in split.side else "clicks"
        values = getattr(split, field)
        after = predictor.score_split(replace(split, **{field: values | {name: change(values[name])}}))
        assert (np.abs(after - before) > 1e-7).mean() > 0.3, name


REFUSED = [
    ({"price": ["a"] * 40}, "column price has type string; it must be a column of numbers"),
    ({"price": [np.inf] + [1.0] * 39}, "column price, row 0: inf, which is infinite"),
    ({"city": [1.5] * 40}, "column city has type double; it must be integers or text, to be hashed"),
    ({"interests": [[9]] + [[]] * 39}, "column interests, row 0: id 9; the config's vocab_size allows ids 0 … 8"),
    ({"bought": [[], [ITEMS]] + [[]] * 38}, f"column bought, row 1: id {ITEMS}; item_info has ids 0 … {ITEMS - 1}"),
    ({"gap": [[1.0] * 99] + [[]] * 39}, "column gap, row 0: 99 values; item_seq has"),
    ({"action": "wrong"}, "id 4; the config's vocab_size allows ids 0 … 3"),
]


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=[s[:30] for _, s in REFUSED])
def test_what_a_column_cannot_hold_is_refused(data, tmp_path, change, sentence):
    table = pq.read_table(data / "test.parquet")
    for name, values in change.items():
        if values == "wrong":
            values = [[4] * len(h) for h in table["item_seq"].to_pylist()]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(InputError) as error:
        load_split(tmp_path / "bad.parquet", resolved(data).features, None, with_labels=False)
    assert sentence in str(error.value)


WRONG = [
    ({"side": [{"kind": "tags", "name": "a", "vocab_size": 3}]}, "a.length is missing"),
    ({"side": [{"name": "a", "hash": 3, "vocab_size": 4}]}, "both hash and vocab_size"),
    ({"side": [{"kind": "numeric", "name": "a", "boundaries": [2.0, 1.0]}]}, "do not rise"),
    ({"clicks": [{"kind": "tags", "name": "a", "vocab_size": 3, "length": 2}]}, "categorical or numeric"),
    ({"item_features": [{"kind": "items", "name": "a"}]}, "list it under features.side"),
    (
        {"side": [{"name": "a", "vocab_size": 3}], "clicks": [{"name": "a", "vocab_size": 3}]},
        "is a side and a click feature",
    ),
]


@pytest.mark.parametrize(("features", "sentence"), WRONG, ids=[s for _, s in WRONG])
def test_settings_that_cannot_be_are_refused(data, features, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_config(merged(raw_config(data), {"features": features}))


# Several labels


def with_liked(folder):
    """Files whose rows have a second label, likes: every other click, by the target's number."""
    write(folder)
    for name in ("train", "valid", "test"):
        table = pq.read_table(folder / f"{name}.parquet")
        liked = (table["label"].to_numpy() == 1) & (table["item_id"].to_numpy() % 2 == 0)
        pq.write_table(table.append_column("liked", pa.array(liked.astype(np.int8))), folder / f"{name}.parquet")
    return folder


LIKED = {"features": {"labels": {"label": 2.0, "liked": 0.5}}}


def test_the_released_mask_scores_clicks_with_features(data, tmp_path):
    """Where all positions are attended to at once, what stands in for them has no features of clicks."""
    settings = {"model": {"history_mask": "released"}, "train": {"epochs": 1}}
    train(config_of(data, settings), tmp_path / "run")
    predict(tmp_path / "run", data / "test.parquet", tmp_path / "scores.csv")


@pytest.mark.parametrize("name", [slow("mmctr"), "matching"])
def test_a_second_label_has_its_head_its_auc_and_its_scores(tmp_path, name):
    data = with_liked(tmp_path / "data")
    config = config_of(data, merged(SYSTEMS.get(name, {}), LIKED | {"train": {"epochs": 3, "learning_rate": 0.02}}))
    summary = train(config, tmp_path / "run")
    assert 0 <= summary.validation["auc_liked"] <= 1
    result = predict(tmp_path / "run", data / "test.parquet", tmp_path / "scores.parquet")
    scores = pq.read_table(tmp_path / "scores.parquet")
    liked = pq.read_table(data / "test.parquet")["liked"].to_numpy()
    assert result["metrics"]["auc_liked"] == pytest.approx(roc_auc_score(liked, scores["score_liked"]))
    if name == "matching":
        pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install '.[serve]'")
        from mmctr_jax.export.folder import export
        from mmctr_jax.serve import Scorer

        export(tmp_path / "run", tmp_path / "export")
        scorer = Scorer(tmp_path / "export")
        found = [scorer.scores_by_label(*request) for request in as_requests(data)]
        for label, column in (("scores", "score"), ("liked", "score_liked")):
            np.testing.assert_allclose([f[label][0] for f in found], scores[column].to_numpy(), atol=1e-5)


def test_the_loss_is_the_sum_of_the_labels_by_what_they_count():
    rng = np.random.default_rng(0)
    logits, label, liked, weight = rng.normal(size=(6, 2)), rng.integers(0, 2, 6), rng.integers(0, 2, 6), rng.random(6)
    weight[3] = 0
    logits[3] = np.nan  # of a row that does not count
    features = Features(labels={"label": 2.0, "liked": 0.5})
    batch = {"label": jnp.asarray(label), "labels": {"liked": jnp.asarray(liked)}, "weight": jnp.asarray(weight)}
    chance = 1 / (1 + np.exp(-np.delete(logits, 3, 0)))
    label, liked, weight = (np.delete(x, 3) for x in (label, liked, weight))

    def bce(y, p):
        return -(weight * (y * np.log(p) + (1 - y) * np.log(1 - p))).sum()

    expected = 2.0 * bce(label, chance[:, 0]) + 0.5 * bce(liked, chance[:, 1])
    assert loss_of_all_labels(jnp.asarray(logits), batch, features) == pytest.approx(expected, rel=1e-5)


def test_labels_that_cannot_be_are_refused(tmp_path):
    data = with_liked(tmp_path / "data")
    with pytest.raises(InputError, match="features.labels lists 'item_id'"):
        config_of(data, {"features": {"labels": {"item_id": 1.0}}})
    with pytest.raises(InputError, match="column bought2 is missing"):
        train(config_of(data, {"features": {"labels": {"bought2": 1.0}}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def as_requests(data):
    for row in pq.read_table(data / "test.parquet").to_pylist():
        side = {name: row[name] for name in ("price", "interests", "bought", "city", "user_id")}
        yield row["item_seq"], [row["item_id"]], side, {name: row[name] for name in ("action", "gap")}


def test_requests_have_the_columns_as_they_are(run, data, tmp_path):
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install '.[serve]'")
    from mmctr_jax.export.folder import export
    from mmctr_jax.serve import RequestError, Scorer

    export(run, tmp_path / "export")
    predict(run, data / "test.parquet", tmp_path / "scores.parquet")
    expected = pq.read_table(tmp_path / "scores.parquet")["score"].to_numpy()
    scorer = Scorer(tmp_path / "export")
    np.testing.assert_allclose([scorer.score(*request)[0] for request in as_requests(data)], expected, atol=1e-5)
    history, _, side, clicks = next(r for r in as_requests(data) if len(r[0]) > 2)
    many = scorer.score(history, [3, 4], {n: [v, v] for n, v in side.items()}, clicks)
    np.testing.assert_allclose(many, scorer.score(history, [3, 4], side, clicks), atol=1e-6)
    for field, value, sentence in (
        ("price", "dear", r"side.price is 'dear'; it must be a number"),
        ("price", 1e300, r"side.price is 1e\+300, which is infinite"),
        ("city", 1.5, r"side.city is 1.5; it must be a text"),
        ("interests", 3, r"side.interests is 3; give a list"),
        ("interests", [[1], [9]], r"side.interests\[1\]\[0\] is 9; its values are 0 to 8"),
        ("bought", [ITEMS], rf"side.bought\[0\] is {ITEMS}"),
    ):
        with pytest.raises(RequestError, match=sentence):
            scorer.score(history, [3, 4], side | {field: value}, clicks)
    for wrong, sentence in (
        ({"action": clicks["action"]}, "clicks.gap is missing"),
        (clicks | {"gap": [1]}, "clicks.gap has 1 values; give one for each of the"),
        (clicks | {"mood": [1]}, "clicks.mood is not a feature of the model"),
    ):
        with pytest.raises(RequestError, match=sentence):
            scorer.score(history, [3, 4], side, wrong)


def test_crosses_are_of_the_vectors_that_tables_hold(data):
    """What stands where in the vectors of a row and of a target: numbers, frozen vectors other items are no part."""
    config = config_of(data, SYSTEMS["matching"])
    features, E = config.with_features(items_of(config).features).features, config.model.embedding_dim
    model = model_of(config.with_features(features))
    item = features.item_width(E)
    row = model._learned(features.side, np.arange(features.row_width(E))[None], 0)
    assert [part[0].tolist() for part in row] == [
        list(range(start, start + E)) for start in (2, 2 + E, 2 + 2 * E + item, 2 + 3 * E + item)
    ]
    target = model._learned(features.item_features, np.arange(item)[None], E)
    assert [part[0].tolist() for part in target] == [list(range(start, start + E)) for start in (E, 2 * E + 8)]
