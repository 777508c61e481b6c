"""Semantic codes and neighbours: fitted on the items' frozen vectors, kept with a fingerprint."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic import items_of, width_of

from mmctr_jax.config import parse_config
from mmctr_jax.data import fitted as fits
from mmctr_jax.data.items import fingerprint, load_items
from mmctr_jax.errors import InputError
from mmctr_jax.features import CodesFeature, NeighboursFeature


def fitted(feature, vectors, folder):
    return fits.fitted(feature, vectors, fingerprint({feature.source: vectors}), folder)


def codes(levels=1, size=4, dim=3):
    return CodesFeature(kind="codes", name="codes", source="vector", dim=dim, levels=levels, size=size)


def neighbours(top_k=2, dim=3):
    return NeighboursFeature(kind="neighbours", name="near", source="vector", dim=dim, top_k=top_k)


def clusters(rng, centres=4, each=10, dim=3):
    """Item 0 zero, then `each` items tightly around each of `centres` far points."""
    means = 10 * rng.normal(size=(centres, dim))
    vectors = np.repeat(means, each, axis=0) + 0.01 * rng.normal(size=(centres * each, dim))
    return np.concatenate([np.zeros((1, dim)), vectors]).astype(np.float32)


def test_vector_quantisation_finds_clusters(tmp_path):
    vectors = clusters(np.random.default_rng(0))
    ids = fitted(codes(), vectors, tmp_path)["values"]
    assert ids.shape == (41, 1) and ids.dtype == np.int32 and ids[0] == 0
    groups = ids[1:, 0].reshape(4, 10)
    assert (groups == groups[:, :1]).all() and sorted(groups[:, 0]) == [1, 2, 3, 4]


def test_each_level_quantises_what_the_one_before_left(tmp_path):
    """The ids and centroids rebuild each vector; the error reported is that of the rebuilt ones, falling by level."""
    vectors = np.random.default_rng(1).normal(size=(301, 5)).astype(np.float32)
    vectors[[0, 7]] = 0
    feature = codes(levels=3, size=8, dim=5)
    stored = fitted(feature, vectors, tmp_path)
    ids = stored["values"]
    known = vectors.any(axis=1)
    assert not ids[~known].any() and (ids[known] > 0).all()
    rebuilt, errors = np.zeros_like(vectors), []
    for level in range(3):
        number = ids[known, level] - 1 - level * 8
        assert number.min() >= 0 and number.max() < 8 and len(np.unique(number)) == stored["used"][level]
        left = vectors[known] - rebuilt[known]
        nearest = np.square(left[:, None] - stored["centroids"][level]).sum(-1)
        np.testing.assert_allclose(nearest[np.arange(len(left)), number], nearest.min(1), rtol=1e-4, atol=1e-4)
        rebuilt[known] += stored["centroids"][level][number]
        errors.append(np.square(vectors - rebuilt).sum() / np.square(vectors[known] - vectors[known].mean(0)).sum())
    np.testing.assert_allclose(errors, stored["error"], rtol=1e-4)
    assert errors[0] > errors[1] > errors[2] > 0
    assert ids.max() < feature.table_size


def test_neighbours_are_the_nearest_by_cosine_without_the_item_itself(tmp_path):
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    vectors[[0, 5]] = 0
    vectors[10:16] = vectors[9]  # seven alike: an item may be crowded out of its own list
    vectors[20] *= 1e-30  # their squares are beyond float32
    vectors[21] *= 1e25
    ids = fitted(neighbours(top_k=3), vectors, tmp_path)["values"]
    assert not ids[[0, 5]].any()
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    cosines = unit @ unit.T
    cosines[:, [0, 5]] = -2
    np.fill_diagonal(cosines, -2)
    for item in set(range(40)) - {0, 5}:
        assert item not in ids[item] and len(set(ids[item])) == 3
        np.testing.assert_allclose(cosines[item, ids[item]], np.sort(cosines[item])[::-1][:3], atol=1e-5)


@pytest.mark.parametrize("feature", [codes(levels=2), neighbours()])
def test_fitted_once_for_the_same_vectors_and_settings(tmp_path, feature, monkeypatch):
    vectors = clusters(np.random.default_rng(3))
    ids = lambda folder: fitted(feature, vectors, folder)["values"]  # noqa: E731
    first = ids(tmp_path)
    assert np.array_equal(ids(tmp_path / "elsewhere"), first)  # anywhere the same
    kept = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*.npz")}
    with monkeypatch.context() as patch:
        patch.setattr(type(feature), "fit", None)  # would fail
        assert np.array_equal(ids(tmp_path), first)
    (file,) = kept
    file.write_bytes(file.read_bytes()[:100])  # cut short: fitted anew
    assert np.array_equal(ids(tmp_path), first)
    vectors[3] += 1
    ids(tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2 and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("feature", "words"), [(codes(size=50), "size 50"), (neighbours(top_k=40), "top_k 40")])
def test_too_few_vectors_are_refused(tmp_path, feature, words):
    with pytest.raises(InputError, match=words):
        fitted(feature, clusters(np.random.default_rng(4)), tmp_path)


@pytest.mark.parametrize("feature", [codes(), neighbours()])
def test_a_cache_folder_that_cannot_be_is_refused(tmp_path, feature):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="data.cache_dir"):
            fitted(feature, clusters(np.random.default_rng(6)), folder)


@pytest.mark.parametrize("joined", [True, False])
def test_codes_join_or_replace_the_vector(tmp_path, joined):
    vectors = clusters(np.random.default_rng(5))
    table = pa.table({"item_id": np.arange(len(vectors)), "vector": list(vectors)})
    pq.write_table(table, tmp_path / "item_info.parquet")
    features = [codes(levels=2).model_dump(), neighbours().model_dump()]
    features += [{"kind": "embedding", "name": "vector", "dim": 3}] * joined
    data = {"train": "t", "valid": "v", "item_info": str(tmp_path / "item_info.parquet")}
    data["cache_dir"] = str(tmp_path / "cache")
    config = parse_config({"data": data, "features": {"item_features": features}})
    items = items_of(config)
    assert set(items.table) == {"codes", "near"} | ({"vector"} if joined else set())
    expected = fitted(codes(levels=2), vectors, tmp_path / "cache")
    assert np.array_equal(items.table["codes"], expected["values"])
    assert list(items.codebooks) == ["codes"]
    for key in ("centroids", "used", "error"):
        np.testing.assert_array_equal(items.codebooks["codes"][key], expected[key])
    assert width_of(config.with_features(items.features)) == 64 + 64 + 64 + 3 * joined
    own = {"codes": items.table["codes"][::-1], "near": items.table["near"]}
    known = items_of(config, own)  # a run that goes on keeps its own codes, wherever they came from
    assert known.table["codes"] is own["codes"] and known.fingerprint == items.fingerprint
    other = vectors.copy()
    other[5] += 1
    pq.write_table(pa.table({"item_id": np.arange(len(vectors)), "vector": list(other)}), data["item_info"])
    assert items_of(config, own).fingerprint != items.fingerprint


def test_what_is_kept_is_found_without_reading_the_vectors(tmp_path):
    """By another process of several, which has the key of the table."""
    vectors = clusters(np.random.default_rng(8))
    pq.write_table(pa.table({"item_id": np.arange(len(vectors)), "vector": list(vectors)}), tmp_path / "items.parquet")
    raw = {"data": {"train": "t", "valid": "v", "item_info": "i"}}
    features = parse_config(raw).features.model_copy(update={"item_features": (codes(levels=2),)})
    first = load_items(tmp_path / "items.parquet", features, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("items-*/column0.bin")
    assert kept.stat().st_size == vectors.nbytes
    kept.write_bytes(bytes(vectors.nbytes))
    again = load_items(tmp_path / "items.parquet", features, tmp_path / "cache", key=first.key)
    np.testing.assert_array_equal(again.table["codes"], first.table["codes"])
    assert first.table["codes"].any()
