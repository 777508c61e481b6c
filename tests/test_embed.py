"""Item vectors: what goes in comes out fused, row for row; what is not there is zero and named; no look ahead."""

import csv
import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from item_folders import contents, missing_in, vectors_of, write_folder
from synthetic import items_of

from mmctr_jax.commands.embed import main
from mmctr_jax.config import load_config
from mmctr_jax.embed import fusion, parts, pipeline
from mmctr_jax.embed.tfidf import WORDS
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.folder import config_text

ITEMS, TRAINING = 40, 30
MOVIES = Path(__file__).parents[1] / "data" / "ml-latest-small" / "movies.csv"


def save(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def folder(tmp_path):
    """Without a manifest; titles play no part."""
    return write_folder(tmp_path / "data", ["a title"] * ITEMS)


@pytest.fixture
def prepared(tmp_path):
    return write_folder(tmp_path / "data", ["a title"] * ITEMS, TRAINING)


def embed(folder, text=None, image=None, **more):
    return pipeline.embed(folder, text, image, **({"rows_of": "item_feature"} | more))


def principal_components(matrix: np.ndarray, dim: int, fitted: np.ndarray):
    """By numpy's SVD: projections of all rows, their share of the fitted rows' variance, variance by component."""
    mean = matrix[fitted].mean(0)
    _, s, axes = np.linalg.svd(matrix[fitted] - mean, full_matrices=False)
    return (matrix - mean) @ axes[:dim].T, (s[:dim] ** 2).sum() / (s**2).sum(), s[:dim] ** 2 / (fitted.sum() - 1)


def assert_same_up_to_sign(actual: np.ndarray, expected: np.ndarray, atol=1e-5):
    sign = np.sign((actual * expected).sum(0))
    np.testing.assert_allclose(actual * sign, expected, atol=atol)


# Fusion


@pytest.mark.parametrize("width", [7, 60], ids=["more items than numbers", "more numbers than items"])
def test_the_vectors_are_the_principal_components_of_the_parts_side_by_side(folder, tmp_path, rng, width):
    text, image = rng.normal(size=(ITEMS, width)) * 3 + 5, rng.normal(size=(ITEMS, 9))
    done = embed(folder, save(tmp_path / "t.npy", text), save(tmp_path / "i.npy", image.astype(np.float32)), dim=6)
    expected, share, _ = principal_components(np.hstack([text, image]), 6, np.ones(ITEMS, bool))
    actual = vectors_of(folder, "item_emb_d6")
    assert not actual[0].any()
    assert_same_up_to_sign(actual[1:], expected)
    assert done["explained_variance"] == pytest.approx(share)
    assert [(p["kind"], p["width"], p["missing"]) for p in done["parts"]] == [("text", width, 0), ("image", 9, 0)]


def test_a_large_catalogue_in_pieces_gives_nearly_the_same(folder, tmp_path, rng, monkeypatch):
    signal = rng.normal(size=(ITEMS, 3)) * [9, 5, 2] @ rng.normal(size=(3, 12))
    source = save(tmp_path / "t.npy", signal + 1e-3 * rng.normal(size=(ITEMS, 12)))
    whole = embed(folder, source, dim=3, out=tmp_path / "whole.parquet")
    monkeypatch.setattr(fusion, "FULL_PCA_BYTES", 0)
    monkeypatch.setattr(fusion, "CHUNK_ROWS", 9)
    monkeypatch.setattr(parts, "CHUNK_ROWS", 9)
    pieces = embed(folder, source, dim=3, out=tmp_path / "pieces.parquet")
    assert pieces["explained_variance"] == pytest.approx(whole["explained_variance"], abs=1e-4)
    first, second = (vectors_of(tmp_path / f"{name}.parquet", "item_emb_d3") for name in ("whole", "pieces"))
    assert_same_up_to_sign(second, first, atol=0.02)


def test_whitening_gives_unrelated_components_of_unit_variance(prepared, tmp_path, rng):
    skewed = rng.normal(size=(ITEMS, 8)) * 10.0 ** np.arange(-3, 5) @ rng.normal(size=(8, 8))
    embed(prepared, save(tmp_path / "t.npy", skewed), dim=5, whiten=True)
    fitted = vectors_of(prepared, "item_emb_d5")[1 : TRAINING + 1]
    np.testing.assert_allclose(np.cov(fitted.T), np.eye(5), atol=1e-4)


def test_unit_length_of_the_result_and_of_the_parts(folder, tmp_path, rng):
    text, image = rng.normal(size=(ITEMS, 5)), rng.normal(size=(ITEMS, 5))
    one, two = save(tmp_path / "t.npy", text), save(tmp_path / "i.npy", image)
    stretched = save(tmp_path / "t2.npy", text * rng.uniform(0.1, 100, (ITEMS, 1)))
    for name, first in (("a", one), ("b", stretched)):
        embed(folder, first, two, dim=4, l2=["parts"], out=tmp_path / f"{name}.parquet")
    a, b = (vectors_of(tmp_path / f"{name}.parquet", "item_emb_d4") for name in "ab")
    np.testing.assert_allclose(a, b, atol=1e-5)
    embed(folder, one, two, dim=4, l2=["parts", "result"], out=tmp_path / "c.parquet")
    c = vectors_of(tmp_path / "c.parquet", "item_emb_d4")[1:]
    np.testing.assert_allclose(c, a[1:] / np.linalg.norm(a[1:], axis=1, keepdims=True), atol=1e-5)


# Rows in, rows out


def test_items_without_a_part_are_named_and_without_all_are_zero_and_left_out(folder, tmp_path, rng, capsys):
    text, image = rng.normal(size=(ITEMS, 6)), rng.normal(size=(ITEMS, 6))
    text[[3, 7, 8]] = 0
    image[[8, 20]] = 0
    done = embed(folder, save(tmp_path / "t.npy", text), save(tmp_path / "i.npy", image), dim=4)
    assert missing_in(folder) == {4: "text", 8: "text", 9: "text+image", 21: "image"}
    has = np.arange(ITEMS) != 8
    expected, _, _ = principal_components(np.hstack([text, image]), 4, has)
    actual = vectors_of(folder, "item_emb_d4")[1:]
    assert not actual[8].any() and actual[has].any(axis=1).all()
    assert_same_up_to_sign(actual[has], expected[has])
    assert done["without_embedding"] == 1 and [p["missing"] for p in done["parts"]] == [3, 2]
    assert "1 items are without any embedding, their vectors are zero: 1009." in capsys.readouterr().out


def test_item_info_keeps_its_rows_and_columns_whatever_their_order(folder, tmp_path, rng):
    source = save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 4)))
    embed(folder, source, dim=4, out=tmp_path / "straight.parquet")
    info = pq.read_table(folder / "item_info.parquet")
    extra = pa.table({"item_id": pa.array([ITEMS + 1], pa.int32()), "item_tags": pa.array([[5]], pa.list_(pa.int64()))})
    shuffled = pa.concat_tables([info, extra]).take(rng.permutation(ITEMS + 2))
    pq.write_table(shuffled, folder / "item_info.parquet")
    embed(folder, source, dim=4)
    after = pq.read_table(folder / "item_info.parquet")
    assert after.drop_columns("item_emb_d4").equals(shuffled)
    assert after["item_emb_d4"].type == pa.list_(pa.float32(), 4)
    actual = vectors_of(folder, "item_emb_d4")
    np.testing.assert_array_equal(actual[:-1], vectors_of(tmp_path / "straight.parquet", "item_emb_d4"))
    assert not actual[-1].any() and missing_in(folder) == {ITEMS + 1: "text"}  # item_feature does not know it


@pytest.mark.parametrize("key", ["item", "item as integers", "item_id"])
def test_a_parquet_file_goes_by_item_in_any_order(folder, tmp_path, rng, key, capsys):
    vectors = rng.normal(size=(ITEMS, 5)).astype(np.float32)
    order = rng.permutation(ITEMS)[:-2]  # two items are absent
    ids = np.append(order + 1, [700]) if key == "item_id" else np.append(order + 1001, [700])
    keys = pa.array([str(i) for i in ids]) if key == "item" else pa.array(ids)
    values = pa.array(list(np.vstack([vectors[order], np.ones((1, 5))])), pa.list_(pa.float64()))
    pq.write_table(pa.table({key.split()[0]: keys, "vector": values, "n": ids}), tmp_path / "v.parquet")
    done = embed(folder, image=str(tmp_path / "v.parquet"), dim=3)
    vectors[np.setdiff1d(np.arange(ITEMS), order)] = 0
    embed(folder, image=save(tmp_path / "v.npy", vectors), dim=3, out=tmp_path / "out.parquet")
    np.testing.assert_array_equal(
        vectors_of(folder, "item_emb_d3"), vectors_of(tmp_path / "out.parquet", "item_emb_d3")
    )
    assert set(missing_in(folder)) == set(np.setdiff1d(np.arange(ITEMS), order) + 1)
    assert done["parts"][0]["rows_of_unknown_items"] == 1
    assert "1 of 39 rows are of items that item_feature.parquet lacks" in capsys.readouterr().out


def test_columns_of_the_challenges_item_feature_can_be_named(tmp_path, rng):
    folder = write_folder(tmp_path / "data", [None] * ITEMS, originals=False)
    table = pq.read_table(folder / "item_feature.parquet")
    text, image = rng.normal(size=(ITEMS, 6)), rng.normal(size=(ITEMS, 4))
    for name, values in (("txt_emb_BERT", text), ("img_emb_CLIPRN50", image)):
        table = table.append_column(name, pa.array(list(values), pa.list_(pa.float64())))
    pq.write_table(table, folder / "item_feature.parquet")
    file = folder / "item_feature.parquet"
    with pytest.raises(InputError, match="several columns .* name one: .*:txt_emb_BERT, .*:img_emb_CLIPRN50"):
        embed(folder, text=str(file), dim=5)
    embed(folder, f"{file}:txt_emb_BERT", f"{file}:img_emb_CLIPRN50", dim=5)
    expected, _, _ = principal_components(np.hstack([text, image]), 5, np.ones(ITEMS, bool))
    assert_same_up_to_sign(vectors_of(folder, "item_emb_d5")[1:], expected)


# No look ahead


def test_what_appears_after_training_changes_no_vector_of_training_items(tmp_path, rng):
    words = ["red", "blue", "green", "cat", "dog", "bird", "runs", "sleeps", "big", "small", "old", "new"]
    titles = [" ".join(rng.choice(words, 4)) for _ in range(ITEMS)]
    later = [*titles[:TRAINING], *("strange " + " ".join(rng.choice(words, 5)) for _ in range(ITEMS - TRAINING))]
    numbers = rng.normal(size=(ITEMS, 6))
    results = []
    for name, mine in (("a", titles), ("b", later)):
        folder = write_folder(tmp_path / name, mine, TRAINING)
        numbers[TRAINING:] = rng.normal(size=(ITEMS - TRAINING, 6)) * 100
        done = embed(folder, "tfidf", save(tmp_path / f"{name}.npy", numbers), dim=8)
        assert done["fitted_on"] == {"items": TRAINING, "training_only": True}
        results.append(vectors_of(folder, "item_emb_d8"))
    np.testing.assert_array_equal(results[0][: TRAINING + 1], results[1][: TRAINING + 1])
    assert (results[0][TRAINING + 1 :] != results[1][TRAINING + 1 :]).any(axis=1).all()


# Text without a model


def test_like_titles_are_near_each_other(tmp_path):
    with open(MOVIES, newline="", encoding="utf-8") as stream:
        titles = [row["title"] for row in csv.DictReader(stream)][:2000]
    folder = write_folder(tmp_path / "data", titles)
    embed(folder, dim=48, l2=["result"])
    vectors = vectors_of(folder, "item_emb_d48")[1:]
    cosine = vectors @ vectors.T
    for series in ("Star Trek", "Star Wars", "Die Hard", "Karate Kid", "Nightmare on Elm Street", "Godfather"):
        mine = np.array([series in title for title in titles])
        to_each_other = cosine[mine][:, mine][~np.eye(mine.sum(), dtype=bool)]
        assert to_each_other.mean() > np.quantile(cosine[mine][:, ~mine], 0.9), series


def test_words_of_many_scripts():
    words = re.compile(WORDS).findall
    assert words("Don't stop: Spider-Man 2, 50% off!") == ["Don't", "stop", "Spider-Man", "2", "50", "off"]
    assert words("Слово за слово") == ["Слово", "за", "слово"]
    assert words("看iPhone手机") == ["看", "iPhone", "手", "机"]
    assert words("हिन्दी फ़िल्म") == ["हिन्दी", "फ़िल्म"]


def test_a_title_is_missing_where_it_is_empty_or_has_no_known_word(tmp_path, capsys):
    titles = ["red cat", "red dog", None, "  ", "blue cat", "blue dog", "zzz", "red cat dog"]
    folder = write_folder(tmp_path / "data", titles)
    embed(folder, dim=2)
    assert missing_in(folder) == {3: "text", 4: "text", 7: "text"}
    assert "1 titles have no word that the vocabulary knows" in capsys.readouterr().out


def test_few_titles_may_have_no_word_in_common(tmp_path):
    folder = write_folder(tmp_path / "data", ["red cat", "blue dog", "old bird", "new song"])
    assert embed(folder, dim=3)["without_embedding"] == 0
    vectors = vectors_of(folder, "item_emb_d3")[1:]
    assert len(np.unique(vectors.round(3), axis=0)) == 4


# The folder


def test_a_prepared_folder_knows_of_its_embedding(prepared, tmp_path, rng):
    source = save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 9)))
    embed(prepared, source, dim=5)
    table = pq.read_table(prepared / "item_info.parquet")
    plain = table.cast(pa.schema([field.remove_metadata() for field in table.schema]))
    pq.write_table(plain, prepared / "item_info.parquet")  # as another program would write it again
    embed(prepared, source, dim=8, whiten=True)
    assert pq.read_schema(prepared / "item_info.parquet").names == ["item_id", "item_tags", "item_emb_d8"]
    recorded = json.loads((prepared / "manifest.json").read_text())["embedding"]
    assert recorded["column"] == "item_emb_d8" and recorded["whiten"] and recorded["dim"] == 8
    assert recorded["sources"] == {"text": hashlib.sha256((tmp_path / "t.npy").read_bytes()).hexdigest()}
    assert recorded["explained_variance"] < 1


def test_training_takes_what_was_written(prepared, tmp_path, rng, monkeypatch):
    manifest = json.loads((prepared / "manifest.json").read_text())
    config, source = prepared / f"{prepared.name}.yaml", save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 9)))
    config.write_text(config_text(manifest))
    monkeypatch.chdir(prepared.parent)
    embed(Path(prepared.name), source, dim=5)  # however the folder is named
    table = items_of(load_config(config)).table
    np.testing.assert_array_equal(table["item_emb_d5"], vectors_of(prepared, "item_emb_d5"))
    changed = config.read_text().replace("epochs: 10", "epochs: 3")
    config.write_text(changed)
    embed(prepared, source, dim=4)  # the user's own now: not touched
    assert config.read_text() == changed


def test_the_same_command_gives_the_same_bytes(prepared, tmp_path, rng):
    titles = [" ".join(rng.choice(["red", "blue", "cat", "dog", "old", "new"], 4)) for _ in range(ITEMS)]
    other = write_folder(tmp_path / "other" / "data", titles, TRAINING)
    embed(other, dim=4)
    first = contents(other)
    embed(other, dim=4)
    assert contents(other) == first


def test_killed_between_its_two_files_it_leaves_no_stray_column(prepared, tmp_path, rng, monkeypatch):
    source = save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 9)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "record_embedding", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        embed(prepared, source, dim=5)
    embed(prepared, source, dim=4)
    assert pq.read_schema(prepared / "item_info.parquet").names == ["item_id", "item_tags", "item_emb_d4"]


def test_out_leaves_the_folder_as_it_is(prepared, tmp_path, rng):
    source, before = save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 9))), contents(prepared)
    (tmp_path / "out").mkdir()
    embed(prepared, source, dim=5, out=tmp_path / "out" / "x.parquet")
    assert contents(prepared) == before
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["items_without_embedding.csv", "x.parquet"]


def test_another_ones_column_is_replaced_only_in_another_file(folder, tmp_path, rng):
    source = save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 9)))
    embed(folder, source, dim=5)
    before = contents(folder)
    with pytest.raises(InputError, match="has a column item_emb_d5 already; .* --out"):
        embed(folder, source, dim=5)
    with pytest.raises(InputError, match="--out .*item_info.parquet cannot be written"):
        embed(folder, source, dim=5, out=folder / "item_info.parquet")
    assert contents(folder) == before
    embed(folder, source, dim=5, whiten=True, out=tmp_path / "x.parquet")
    assert not np.allclose(vectors_of(tmp_path / "x.parquet", "item_emb_d5"), vectors_of(folder, "item_emb_d5"))


# Refusals


def table_of(column, values, **more) -> pa.Table:
    return pa.table({column: values, "v": pa.array([[1.0, 2.0]] * len(values), pa.list_(pa.float32()))} | more)


def with_cell(row: int, value) -> pa.Table:
    cells = [[float(i), 1.0] for i in range(ITEMS)]
    cells[row] = value
    return pa.table({"item_id": np.arange(1, ITEMS + 1), "v": pa.array(cells, pa.list_(pa.float32()))})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.ones((ITEMS - 1, 4)), "39 rows and item_feature.parquet 40"),
        (np.ones((ITEMS, 4), int), "not one array of"),
        (np.ones(ITEMS), "not one array of"),
        (np.array([[{}]] * ITEMS, object), "cannot be read as a .npy array"),
        (np.where(np.arange(ITEMS)[:, None] == 11, np.nan, np.ones((ITEMS, 4))), "row 11: NaN or infinite"),
        (np.where(np.arange(ITEMS)[:, None] == 11, 1e39, np.ones((ITEMS, 4))), "row 11: NaN or infinite"),
        (np.zeros((ITEMS, 4)), "gives no item a vector"),
        (np.ones((ITEMS, 4)), "the same vector"),
        (np.random.default_rng(0).normal(size=(ITEMS, 2)), "--dim 3 .* largest possible value is 2"),
        (table_of("item_id", [3, 4, 3]), "item_id 3 stands in rows 0 and 2"),
        (table_of("item_id", [700]), "no value of column item_id is an item"),
        (table_of("item_id", pa.array([3, None])), "item_id is null in row 1"),
        (table_of("key", [3]), "item_id is missing"),
        (pa.table({"item_id": [1], "n": [1.0]}), "no column with lists of floats"),
        (with_cell(5, [1.0]), "row 5: a vector of 1 numbers, row 0 has 2"),
        (with_cell(0, None), "row 0: null"),
        (with_cell(6, [np.inf, 1.0]), "row 6: NaN or infinite"),
    ],
)  # fmt: skip
def test_precomputed_vectors_that_cannot_be_right(prepared, tmp_path, source, words):
    path = tmp_path / ("v.npy" if isinstance(source, np.ndarray) else "v.parquet")
    np.save(path, source) if path.suffix == ".npy" else pq.write_table(source, path)
    before = contents(prepared)
    with pytest.raises(InputError, match=words):
        embed(prepared, text=str(path), dim=3)
    assert contents(prepared) == before


def test_whitening_does_not_blow_up_rounding_errors(folder, tmp_path, rng):
    flat = (rng.normal(size=(ITEMS, 3)) @ rng.normal(size=(3, 8))).astype(np.float32)
    with pytest.raises(InputError, match="--whiten would blow up .* only 3 components"):
        embed(folder, save(tmp_path / "t.npy", flat), dim=4, whiten=True)
    embed(folder, save(tmp_path / "t.npy", flat), dim=3, whiten=True)


def test_folders_that_cannot_be_right(tmp_path):
    def refused(words, **options):
        before = contents(folder)
        with pytest.raises(InputError, match=words):
            embed(folder, dim=2, **options)
        assert contents(folder) == before

    folder = tmp_path / "absent"
    refused("item_feature.parquet does not exist")
    folder = write_folder(tmp_path / "blank", [None, " ", ""])
    refused("item_title has no text at all")
    folder = write_folder(tmp_path / "tiny", ["!!!"] * 5)
    refused("too few for TF-IDF")
    refused("absent.npy does not exist", text="absent.npy")
    refused("absent.parquet does not exist", image="absent.parquet:v")
    refused("--out .* cannot be written", out=tmp_path / "nowhere" / "x.parquet")
    feature = pq.read_table(folder / "item_feature.parquet")
    for changed, words in (
        (feature.drop_columns("item_title"), "column item_title is missing"),
        (feature.set_column(1, "item_title", pa.array([1.5] * 5)), "type double; it must be text"),
        (feature.set_column(0, "item_id", pa.array([1, 2, 3, 4, 4])), "item_id 4 stands in rows 3 and 4"),
        (feature.set_column(0, "item_id", pa.array([0, 1, 2, 3, 4])), "row 0: item 0; items are numbered from 1"),
        (feature.set_column(0, "item_id", pa.array([1, 2, 3, 4, 9])), "no row for item 9"),
        (feature.set_column(2, "item", pa.array(["a", "b", "c", "d", "a"])), "item a stands in rows 0 and 4"),
    ):
        pq.write_table(changed, folder / "item_feature.parquet")
        refused(words)
    pq.write_table(feature, folder / "item_feature.parquet")
    (folder / "manifest.json").write_text("{}")
    refused("manifest.json is not as")


def test_the_command(prepared, monkeypatch, capsys, tmp_path, rng):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["embed", *map(str, arguments)])
        return main(sys.argv[1:])

    source = save(tmp_path / "t.npy", rng.normal(size=(ITEMS, 9)))
    assert (
        run(prepared, "--text", source, "--rows-of", "item_feature", "--dim", 5, "--l2", "parts", "result", "--whiten")
        == 0
    )
    assert "{kind: embedding, name: item_emb_d5, dim: 5}" in capsys.readouterr().out
    for arguments in (
        ["--dim", 0],
        ["--l2", "all"],
        ["--pictures", "x"],
        ["--download"],
        ["--text", source, "--batch-size", 3],
    ):
        with pytest.raises(SystemExit) as exit:
            run(prepared, *arguments)
        assert exit.value.code == 2
    with pytest.raises(InputError, match="needs --pictures"):
        run(prepared, "--image", "some/model")
