"""Steps: the same on any number of devices; rows of weight 0 count in nothing; Adam is Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import make_batch, make_items
from marks import slow
from synthetic import MAX_HISTORY, mean_bce, resolved_config

from benchmarks import clipped_adam as optimizer
from mmctr_jax.devices.sharding import make_mesh, put_batch, put_replicated
from mmctr_jax.training.step import init_state, l2_penalty, make_predict_step, make_train_step


class Run:
    """Three steps and a scoring on the first `devices` devices."""

    def __init__(self, devices, change=None, batches=None):
        config = resolved_config(change)
        rng = np.random.default_rng(0)
        items = make_items(rng)
        batches = batches or [make_batch(rng, rng.integers(0, MAX_HISTORY + 1, 16)) for _ in range(3)]
        mesh = make_mesh(jax.devices()[:devices])
        items = put_replicated(items, mesh)
        self.state = init_state(config, items, mesh)
        step = make_train_step(config, mesh)
        self.losses, self.norms = [], []
        for batch in batches:
            self.state, metrics = step(self.state, put_batch(batch, mesh), items, np.float32(0.01))
            self.losses.append(float(metrics["loss"])), self.norms.append(float(metrics["grad_norm"]))
        predict = make_predict_step(config, mesh)
        self.logits = np.asarray(predict(self.state.params, self.state.batch_stats, put_batch(batches[0], mesh), items))
        self.params = jax.tree.map(np.asarray, self.state.params)


@pytest.fixture(scope="module")
def one_device():
    return Run(1)


@pytest.mark.parametrize("devices", [slow(2), slow(4), 8])
def test_any_number_of_devices_gives_the_same_losses(one_device, devices):
    """With dropout: the random bits of a row do not depend on the device that it is on."""
    run = Run(devices)
    np.testing.assert_allclose(run.losses, one_device.losses, rtol=1e-5)
    np.testing.assert_allclose(run.norms, one_device.norms, rtol=1e-4)
    np.testing.assert_allclose(run.logits, one_device.logits, atol=2e-3)
    assert len(run.state.params["cross"]["layer_0"]["kernel"].sharding.device_set) == devices


def test_the_same_run_twice_gives_the_same_bytes(one_device):
    again = Run(1)
    assert again.losses == one_device.losses
    assert all(
        np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (again.params, one_device.params)), strict=True)
    )


@pytest.mark.parametrize("batch_norm", [False, slow(True)])
def test_rows_of_weight_0_count_in_no_loss_gradient_or_statistic(batch_norm):
    change = {
        "model": {"transformer": {"dropout": 0.0}, "dcn": {"deep_dropout": 0.0, "batch_norm": batch_norm}},
        "train": {"batch_size": 16},
    }
    rng = np.random.default_rng(1)
    batch = make_batch(rng, rng.integers(0, MAX_HISTORY + 1, 12))
    filling = make_batch(rng, [MAX_HISTORY] * 4)
    filling["weight"][:] = 0
    filled = jax.tree.map(lambda *rows: np.concatenate(rows), batch, filling)
    plain, with_filling = (Run(1, change, [b]) for b in (batch, filled))
    np.testing.assert_allclose(with_filling.losses, plain.losses, rtol=1e-5)
    np.testing.assert_allclose(with_filling.norms, plain.norms, rtol=1e-4)
    statistics = (jax.tree.leaves(run.state.batch_stats) for run in (with_filling, plain))
    for ours, theirs in zip(*statistics, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    if not batch_norm:  # a bias before a batch norm has no true gradient: Adam makes steps of its rounding
        np.testing.assert_allclose(with_filling.logits[:12], plain.logits, atol=2e-3)


def test_a_row_of_weight_2_counts_as_two_rows():
    rng = np.random.default_rng(0)
    logits, label = jnp.array(rng.normal(size=6)), jnp.array([0.0, 1, 1, 0, 1, 0])
    times = np.array([1, 2, 1, 3, 1, 2])
    weighted = mean_bce(logits, label, jnp.array(times))
    repeated = mean_bce(jnp.repeat(logits, times), jnp.repeat(label, times), jnp.ones(times.sum()))
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6)


def test_a_label_of_07_counts_as_07_clicks_and_03_non_clicks():
    rng = np.random.default_rng(0)
    logits, label = jnp.array(rng.normal(size=6)), rng.random(6)
    soft = mean_bce(logits, jnp.array(label), jnp.ones(6))
    parts = mean_bce(
        jnp.repeat(logits, 2), jnp.tile(jnp.array([1.0, 0.0]), 6), jnp.stack([label, 1 - label], 1).ravel()
    )
    np.testing.assert_allclose(soft, parts, rtol=1e-6)


def test_a_nan_in_a_row_of_weight_0_stays_there():
    logits = jnp.array([0.5, jnp.nan])
    args = jnp.array([1.0, 0.0]), jnp.array([1.0, 0.0])
    loss, grad = jax.value_and_grad(mean_bce)(logits, *args)
    assert float(loss) == pytest.approx(np.log1p(np.exp(-0.5))) and grad[1] == 0 and np.isfinite(grad[0])


def test_loss_has_a_gradient_far_beyond_where_the_sigmoid_saturates():
    grad = jax.grad(mean_bce)(jnp.array([40.0]), jnp.array([0.0]), jnp.array([1.0]))
    assert grad[0] == 1.0


def test_adam_and_clipping_by_hand():
    """Against Adam written out in numpy, and clipping as torch's clip_grad_norm_ documents it."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=5)
    params, m, v = {"w": jnp.asarray(w, jnp.float32)}, 0.0, 0.0
    state = optimizer.init(params)
    for t in range(1, 5):
        g = rng.normal(size=5) * 3
        clipped = g * min(1.0, 2.0 / (np.linalg.norm(g) + 1e-6))
        m, v = 0.9 * m + 0.1 * clipped, 0.999 * v + 0.001 * clipped**2
        w = w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        params, state, norm = optimizer.update(
            {"w": jnp.asarray(g, jnp.float32)}, state, params, jnp.float32(0.01), 2.0
        )
        assert float(norm) == pytest.approx(np.linalg.norm(g), rel=1e-6)
    np.testing.assert_allclose(params["w"], w, rtol=1e-5)


def test_small_gradients_are_not_clipped():
    params, grads = {"w": jnp.ones(3)}, {"w": jnp.full(3, 0.1)}
    clipped, *_ = optimizer.update(grads, optimizer.init(params), params, jnp.float32(0.1), 10.0)
    adam = optax.adam(0.1)
    updates, _ = adam.update(grads, adam.init(params), params)
    np.testing.assert_allclose(clipped["w"], optax.apply_updates(params, updates)["w"], rtol=1e-6)


def test_l2_penalty_tells_tables_from_other_matrices():
    params = {
        "embedding": {"item_id": jnp.full((2, 3), 2.0), "emb": {"kernel": jnp.full((2, 2), 3.0)}},
        "head": {"kernel": jnp.full((1, 2), 1.0), "bias": jnp.full((2,), 100.0)},
    }
    assert float(l2_penalty(params, 0.1, 0.0)) == pytest.approx(0.05 * 24)
    assert float(l2_penalty(params, 0.0, 0.1)) == pytest.approx(0.05 * (36 + 2))
    assert float(l2_penalty(params, 0.0, 0.0)) == 0


def test_l2_moves_the_weights_but_not_the_reported_loss(one_device):
    pulled = Run(1, {"train": {"embedding_l2": 1.0, "net_l2": 1.0}})
    assert pulled.losses[0] == pytest.approx(one_device.losses[0], rel=1e-6)
    assert pulled.norms[0] > one_device.norms[0]
