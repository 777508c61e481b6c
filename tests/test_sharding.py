"""Parameters split over the devices: the same losses and the same model, in less memory on each."""

import jax
import numpy as np
import pytest
from batches import batch_of_many, features_of_many, make_split, table_of_many
from jax.sharding import PartitionSpec as P
from synthetic import DIM, resolved_config

from mmctr_jax.devices.sharding import make_mesh, placed, put_batch, put_items
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import count_parameters
from mmctr_jax.training.scoring import make_score
from mmctr_jax.training.step import abstract_state, init_state, make_train_step, parameter_shapes

ITEMS = 4_201  # more than fit in a whole number of rows for each device


def config_with(sharding, **train):
    change = {
        "features": features_of_many(ITEMS),
        "model": {"dcn": {"cross_layers": 1, "deep": [16]}},
        "train": {"sharding": sharding, "length_buckets": [2], "embedding_l2": 1e-4, "batch_size": 16} | train,
    }
    return resolved_config(change)


@pytest.fixture(scope="module")
def items():
    return table_of_many(ITEMS)


def trained(items, sharding, devices, **train):
    config, mesh = config_with(sharding, **train), make_mesh(jax.devices()[:devices])
    on_device = put_items(items, mesh, config)
    state, step, losses = init_state(config, on_device, mesh), make_train_step(config, mesh), []
    for i, length in enumerate((10, 2, 10, 2)):
        state, metrics = step(state, put_batch(batch_of_many(ITEMS, length, i), mesh), on_device, np.float32(0.01))
        losses.append(float(metrics["loss"]))
    return config, mesh, on_device, state, losses


def unfilled(params):
    """Without the rows that fill tables up."""
    shapes = parameter_shapes(
        config_with("replicated"),
        {"item_tags": np.zeros((2, 3), np.int32), "item_emb_d8": np.zeros((2, DIM), np.float32)},
    )
    return jax.tree.map(lambda x, like: np.array(x)[: like.shape[0]], params, shapes)


@pytest.fixture(scope="module")
def both(items):
    return trained(items, "replicated", 8), trained(items, "fsdp", 8)


@pytest.mark.slow
def test_losses_and_moments_are_those_of_replicated_ones(both):
    """Not the parameters: where a gradient is rounding alone (keys' biases), Adam makes whole steps of it."""
    (_, _, _, whole, losses), (_, _, _, split, again) = both
    np.testing.assert_allclose(again, losses, rtol=2e-5)
    for a, b in ((split.opt_state.mu, whole.opt_state.mu), (split.opt_state.nu, whole.opt_state.nu)):
        for x, y in zip(jax.tree.leaves(unfilled(a)), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4 * max(np.abs(y).max(), 1e-3))
    filling = np.asarray(split.params["embedding"]["item_id"])[ITEMS:]
    assert len(filling) == 4_608 - ITEMS and not filling.any()


@pytest.mark.slow
def test_whole_gradients_momentum_and_average_are_split_likewise(items):
    """Of an optimiser that is not narrowed; in proportion to the gradients, so parameters can be compared, too."""
    settings = {
        "optimizer": {"name": "sgd", "momentum": 0.9},
        "weight_decay": {"tables": 0.1, "matrices": 0.1},
        "ema": 0.9,
    }
    (_, _, _, whole, losses), (_, _, _, split, again) = (
        trained(items, sharding, 8, **settings) for sharding in ("replicated", "fsdp")
    )
    np.testing.assert_allclose(again, losses, rtol=2e-5)
    (momentum, *_), (theirs, *_) = split.opt_state, whole.opt_state
    for a, b in ((split.params, whole.params), (split.averaged, whole.averaged), (momentum.trace, theirs.trace)):
        for x, y in zip(jax.tree.leaves(unfilled(a)), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4 * max(np.abs(y).max(), 1e-3))
        table = a["embedding"]["item_id"]
        assert table.addressable_shards[0].data.shape[0] * 8 == 4_608 and not np.asarray(table)[ITEMS:].any()


@pytest.mark.slow
def test_large_tensors_are_on_each_device_in_part(both, items):
    (_, _, _, whole, _), (_, _, table, split, _) = both

    def on_one_device(tree):
        return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))

    sharding = split.params["cross"]["layer_0"]["kernel"].sharding
    assert not sharding.is_fully_replicated
    for state in (split.params, split.opt_state.mu, split.opt_state.nu):
        rows = state["embedding"]["item_id"].addressable_shards[0].data.shape[0]
        assert rows * 8 == 4_608
    assert table["item_emb_d8"].addressable_shards[0].data.shape == (4_608 // 8, DIM)
    small = sum(x.nbytes for x in jax.tree.leaves(whole) if x.size < 2**14)
    assert on_one_device(split) < small + (on_one_device(whole) - small) / 8 * 1.15
    assert count_parameters(whole.params) > 16_000


@pytest.mark.slow
def test_it_scores_the_same_and_its_checkpoint_fits_other_numbers_of_devices(both, tmp_path):
    (config, mesh, table, whole, _), (split_config, _, split_table, split, _) = both
    rows = make_split(40)
    expected = make_score(config, mesh)(whole.params, {}, rows, table)
    np.testing.assert_allclose(make_score(split_config, mesh)(split.params, {}, rows, split_table), expected, atol=1e-3)
    with RunDirectory(tmp_path).checkpoints(writable=True) as checkpoints:
        checkpoints.save(split.parts(), {"plateau": {"best_step": 4}}, 4, 4)
    for devices in (1, 2):
        fewer = make_mesh(jax.devices()[:devices])
        like = abstract_state(split_config, split_table, fewer)
        with RunDirectory(tmp_path).checkpoints() as checkpoints:
            state, _ = checkpoints.restore_newest(like)
        assert state.params["cross"]["layer_0"]["kernel"].sharding.mesh.size == devices
        for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(split), strict=True):
            np.testing.assert_array_equal(a, b)


def test_what_is_split_and_where():
    mesh = make_mesh()
    assert placed((9088, 9088), mesh, "replicated").is_fully_replicated
    assert placed((9088, 9088), mesh, "fsdp").spec == P("data")
    assert placed((9088, 1021), mesh, "fsdp").spec == P("data")
    assert placed((1021, 9088), mesh, "fsdp").spec == P(None, "data")
    assert placed((1021, 1021), mesh, "fsdp").is_fully_replicated  # 8 divides neither
    assert placed((9088,), mesh, "fsdp").is_fully_replicated  # small
