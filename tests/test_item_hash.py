"""Item ids that share rows: the sum of the two that each is hashed to, wherever item ids are embedded."""

import jax
import numpy as np
import pytest
from batches import make_batch, make_items, randomised
from marks import slow
from synthetic import ITEMS, SYSTEMS, merged, raw_config, resolved_config, write_dataset

from mmctr_jax.config import parse_config
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.errors import InputError
from mmctr_jax.models.embedding import two_rows
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import init_state, make_predict_step

ROWS = 7


def murmur3(x: int) -> int:
    """The finaliser of MurmurHash3 (Appleby), on Python's integers."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
    return x ^ (x >> 16)


def expected_rows(id: int, rows: int) -> list[int]:
    if id == 0:
        return [0, 0]
    return [1 + murmur3(id * factor % 2**32) % (rows - 1) for factor in (0x9E3779B1, 0x85EBCA77)]


def test_rows_are_those_of_the_hash_and_spread_evenly():
    ids = np.array([0, 1, 2, 3, 1000, 2**31 - 1])
    assert two_rows(ids, ROWS).tolist() == [expected_rows(int(id), ROWS) for id in ids]
    pairs = np.asarray(two_rows(np.arange(1, 100_001), 10_001))
    assert pairs.min() == 1 and pairs.max() == 10_000
    for one in pairs.T:  # as dice fall: 10 a row, Poisson
        assert np.bincount(one)[1:].var() == pytest.approx(10, rel=0.1)
    assert len(np.unique(pairs, axis=0)) > 99_900  # hardly two items share both


@pytest.mark.parametrize("system", [slow("mmctr"), "matching", "neighbours"])
def test_a_model_equals_one_with_the_sums_in_its_table(system):
    change = SYSTEMS.get(system, {})
    hashed = resolved_config(merged(change, {"features": {"item_hash": ROWS}}))
    plain, rng = resolved_config(change), np.random.default_rng(0)
    items, batch, mesh = make_items(rng), make_batch(rng), make_mesh(jax.devices()[:1])
    state = init_state(hashed, items, mesh)
    params = randomised(state.params, rng)
    table = np.asarray(params["embedding"]["item_id"])
    assert table.shape[0] == ROWS
    sums = np.stack([table[expected_rows(id, ROWS)].sum(axis=0) for id in range(ITEMS)])
    whole = params | {"embedding": params["embedding"] | {"item_id": sums}}
    found, expected = (
        make_predict_step(config, mesh)(weights, state.batch_stats, batch, items)
        for config, weights in ((hashed, params), (plain, whole))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"tables": "adam"}, {"tables": "adam", "sharding": "fsdp"}, {"ema": 0.9}], ids=str
)
def test_hashed_ids_train_whatever_steps_their_table(tmp_path, settings):
    data, scores = write_dataset(tmp_path / "data"), []
    for name, own in (("dense", {}), ("own", settings)):
        raw = merged(raw_config(data), {"features": {"item_hash": ROWS}, "train": {"epochs": 1, "ema": 0.9} | own})
        train(parse_config(raw), tmp_path / name)
        scores.append(Predictor.load(tmp_path / name).logits(data / "valid.parquet"))
    np.testing.assert_allclose(*scores, rtol=1e-3, atol=1e-4)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="item_hash"):
        resolved_config({"features": {"item_hash": 2}})
