"""Items that training never saw: scored by what else is known of them."""

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from architecture import architecture
from synthetic import CODES, DIM, ITEMS, NEIGHBOURS, TAGS, merged, model_of, raw_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.data.items import with_new_items
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError
from mmctr_jax.features.codes import encode
from mmctr_jax.prediction.predict import predict
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import abstract_state

FEATURES = [
    {"kind": "tags", "name": "item_tags"},
    {"kind": "embedding", "name": "item_emb_d8", "dim": DIM},
    CODES,
    NEIGHBOURS,
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new_items")
    data = write_dataset(folder / "data")
    change = {"features": {"item_features": FEATURES}, "model": {"id_dropout": 0.3}, "train": {"epochs": 1}}
    train(parse_config(merged(raw_config(data), change)), folder / "run")
    return folder / "run", data


def newer(data, path, **change):
    """item_info with two more items: a copy of item 7, and one with a longer list of tags, one of them new."""
    table = pq.read_table(data / "item_info.parquet").to_pylist()
    table += [{**table[7], "item_id": ITEMS}, {**table[8], "item_id": ITEMS + 1, "item_tags": [1, 2, 3, 4, TAGS + 9]}]
    for row, values in change.get("rows", {}).items():
        table[row] |= values
    pq.write_table(pa.Table.from_pylist(table, pq.read_schema(data / "item_info.parquet")), path)
    return path


def rows(histories, targets):
    n = len(targets)
    return pa.table(
        {
            "item_seq": pa.array(histories, pa.list_(pa.int64())),
            "item_id": targets,
            "likes_level": [1] * n,
            "views_level": [2] * n,
        }
    )


def test_a_new_item_scores_as_a_known_one_with_its_features_and_no_id_embedding(run, tmp_path, capsys):
    directory, data = run
    info = newer(data, tmp_path / "newer.parquet")
    histories = [[1, 2, 3], [ITEMS, 4], [5, ITEMS], [ITEMS] * 2 + [3] * 10]
    targets = [ITEMS, 9, ITEMS, 6]
    pq.write_table(rows(histories, targets), tmp_path / "rows.parquet")
    predictor = Predictor.load(directory, info)
    logits = predictor.logits(tmp_path / "rows.parquet")
    out = capsys.readouterr().out
    assert "2 items are new since training. Of 4 rows, 2 have one as the target and 1 more in the history" in out
    assert "1 ids in item_tags are new" in out

    config, items = RunDirectory(directory).read_config(), RunDirectory(directory).read_items()
    with RunDirectory(directory).checkpoints() as checkpoints:
        _, params, _ = checkpoints.restore_best(abstract_state(config, items, make_mesh()))
    # Item 7 without its id embedding stands for the new one; none of these rows has item 7 itself, and no neighbour
    # list that they use may hold it.
    table = {name: np.array(values) for name, values in items.items()}
    extended, _, _ = with_new_items(config.features, items, RunDirectory(directory).read_codebooks(), info)
    table["neighbours"][7] = extended["neighbours"][ITEMS]
    used = table["neighbours"][[1, 2, 3, 4, 5, 6, 7, 9]]
    table["neighbours"][[1, 2, 3, 4, 5, 6, 7, 9]] = np.where(used == 7, 0, used)
    ids = params["embedding"]["item_id"]
    no_seven = params | {"embedding": params["embedding"] | {"item_id": ids.at[7].set(0)}}
    n = config.model.max_history
    history = np.array([([0] * n + [7 if i == ITEMS else i for i in h])[-n:] for h in histories], np.int32)
    batch = {
        "history": history,
        "item": np.array([7 if i == ITEMS else i for i in targets], np.int32),
        "side": {"likes_level": np.full(4, 1, np.int32), "views_level": np.full(4, 2, np.int32)},
        "weight": np.ones(4, np.float32),
    }
    expected = jax.jit(lambda p: model_of(config).apply({"params": p}, batch, table, train=False))(no_seven)
    in_lists = (used == 7).any() or (extended["neighbours"][ITEMS] == 7).any()
    np.testing.assert_allclose(logits, expected, atol=1e-2 if in_lists else 1e-5)


def test_the_table_grows_and_known_rows_stay(run, tmp_path):
    directory, data = run
    run = RunDirectory(directory)
    config, known, centroids = run.read_config(), run.read_items(), run.read_codebooks()
    changed = {"rows": {5: {"item_tags": [3]}}}
    table, number, remarks = with_new_items(
        config.features, known, centroids, newer(data, tmp_path / "newer.parquet", **changed)
    )
    assert number == ITEMS + 2 and {len(values) for values in table.values()} == {ITEMS + 2}
    for name, values in known.items():
        np.testing.assert_array_equal(table[name][:ITEMS, : values.shape[1]], values)
        assert not table[name][:ITEMS, values.shape[1] :].any()
    assert table["item_tags"][ITEMS + 1].tolist() == [1, 2, 3, 4]
    np.testing.assert_array_equal(table["item_emb_d8"][ITEMS], known["item_emb_d8"][7])
    np.testing.assert_array_equal(table["codes"][ITEMS], known["codes"][7])
    unit = known["item_emb_d8"] / np.maximum(np.linalg.norm(known["item_emb_d8"], axis=1, keepdims=True), 1e-9)
    nearest = np.argsort(-(unit @ unit[7]), kind="stable")[:3]  # the copy's own are item 7 and those next to it
    assert set(table["neighbours"][ITEMS]) == set(nearest) and 7 in nearest
    assert table["neighbours"].max() < ITEMS
    assert any("1 items have other features" in r and "the first item 5;" in r for r in remarks)


def test_codes_of_known_vectors_are_those_of_training(run):
    directory, _ = run
    items, centroids = RunDirectory(directory).read_items(), RunDirectory(directory).read_codebooks()
    np.testing.assert_array_equal(encode(items["item_emb_d8"], centroids["codes"]["centroids"]), items["codes"])


def test_a_table_of_other_items_is_refused(run, tmp_path):
    directory, data = run
    everything = {i: {"item_tags": [1 + i % 3]} for i in range(1, ITEMS)}
    info = newer(data, tmp_path / "other.parquet", rows=everything)
    with pytest.raises(InputError, match="ids seem to mean other items"):
        Predictor.load(directory, info)
    pq.write_table(pq.read_table(data / "item_info.parquet").slice(0, 40), tmp_path / "fewer.parquet")
    with pytest.raises(InputError, match="has 40 items, and training had 60"):
        Predictor.load(directory, tmp_path / "fewer.parquet")


def test_new_items_without_their_table_are_refused(run, tmp_path):
    pq.write_table(rows([[1]], [ITEMS]), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=f"id {ITEMS}; item_info has ids 0 … {ITEMS - 1}"):
        predict(run[0], tmp_path / "rows.parquet", tmp_path / "out.csv")


def test_id_dropout_leaves_out_that_share_of_id_embeddings_and_nothing_else():
    """All id embeddings are ones here, so the first columns of an item's vector tell whether its own counted."""
    import jax.numpy as jnp

    from mmctr_jax.models.embedding import EmbeddingLayer

    features = {"num_items": 50, "item_features": [{"kind": "embedding", "name": "v", "dim": 2}], "side": []}
    model = {"embedding_dim": 3, "id_dropout": 0.25, "project_mm": False}
    config = architecture({"features": features, "model": model})
    rng = np.random.default_rng(0)
    items = {"v": rng.normal(size=(50, 2)).astype(np.float32)}
    batch = {
        "history": rng.integers(1, 50, (400, 9)).astype(np.int32),
        "item": rng.integers(1, 50, 400).astype(np.int32),
        "side": {},
    }
    embedding = EmbeddingLayer(config.features, config.model, jnp.float32)
    params = {"params": {"item_id": jnp.ones((50, 3))}}

    def embedded(train, seed=0):
        e = embedding.apply(params, batch, items, train, rngs={"dropout": jax.random.PRNGKey(seed)})
        return np.concatenate([np.asarray(e.target)[:, None], np.asarray(e.history)], axis=1)

    x = embedded(True)
    assert set(np.unique(x[..., :3])) == {0.0, 1.0} and (x[..., 0] == x[..., 2]).all()
    assert abs((x[..., 0] == 0).mean() - 0.25) < 0.03
    ids = np.concatenate([batch["item"][:, None], batch["history"]], axis=1)
    np.testing.assert_array_equal(x[..., 3:], items["v"][ids])
    assert (embedded(True, 1)[..., 0] != x[..., 0]).any()
    assert (embedded(False)[..., :3] == 1).all()
