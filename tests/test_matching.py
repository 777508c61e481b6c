"""The matching model's contrastive loss, against a loop over rows, and what must not reach it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from synthetic import SYSTEMS, resolved_config

from mmctr_jax.devices.sharding import make_mesh, on_devices, put_items
from mmctr_jax.models.matching import contrastive_loss, with_cosines
from mmctr_jax.optimization.norms import group_names
from mmctr_jax.training.step import init_state, make_predict_step, make_train_step, model_of, summed_bce

ROWS, LENGTH, ITEMS = 12, 3, 9


def random_batch(rng, rows=ROWS):
    history = rng.integers(0, ITEMS, (rows, LENGTH)).astype(np.int32)
    history[0] = 0
    return {
        "history": np.sort(history, axis=1),
        "item": rng.integers(1, ITEMS, rows).astype(np.int32),
        "label": rng.integers(0, 2, rows).astype(np.float32),
        "weight": rng.choice(np.float32([0, 1, 1, 2.5]), rows),
    }


def by_loops(affinity, batch):
    """The definition: for each click, -log of its share among the candidates, as rows weigh."""
    total = weights = 0.0
    for row in range(len(affinity)):
        weight = float(batch["weight"][row] * batch["label"][row])
        if not weight:
            continue
        others = [
            other
            for other in range(len(affinity))
            if batch["weight"][other] > 0
            and batch["item"][other] != batch["item"][row]
            and batch["item"][other] not in batch["history"][row]
        ]
        scores = np.exp(np.float64([affinity[row, row], *affinity[row, others]]))
        total -= weight * np.log(scores[0] / scores.sum())
        weights += weight
    return total / weights if weights else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_contrastive_loss_is_the_mean_over_clicks_of_minus_log_of_their_share(seed):
    rng = np.random.default_rng(seed)
    batch, affinity = random_batch(rng), rng.normal(0, 3, (ROWS, ROWS)).astype(np.float32)
    assert by_loops(affinity, batch) > 0
    np.testing.assert_allclose(contrastive_loss(jnp.asarray(affinity), batch), by_loops(affinity, batch), rtol=1e-5)


def test_rows_of_weight_0_reach_neither_loss_nor_gradient_whatever_they_hold():
    rng = np.random.default_rng(0)
    batch, affinity = random_batch(rng), rng.normal(size=(ROWS, ROWS)).astype(np.float32)
    batch["weight"][[2, 5]], batch["label"][[2, 5]] = 0, 1
    affinity[[2, 5]] = affinity[:, [2, 5]] = np.nan
    loss, gradient = jax.value_and_grad(contrastive_loss)(jnp.asarray(affinity), batch)
    np.testing.assert_allclose(loss, by_loops(affinity, batch), rtol=1e-5)
    gradient = np.asarray(gradient)
    assert np.isfinite(gradient).all() and not gradient[[2, 5]].any() and not gradient[:, [2, 5]].any()


def test_a_batch_without_clicks_has_no_contrastive_loss():
    rng = np.random.default_rng(0)
    batch = random_batch(rng) | {"label": np.zeros(ROWS, np.float32)}
    loss, gradient = jax.value_and_grad(contrastive_loss)(jnp.asarray(rng.normal(size=(ROWS, ROWS))), batch)
    assert loss == 0 and not gradient.any()


def test_cosines_are_those_of_numpy_and_smooth_at_zero():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 4))
    expected = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    def of(a, b):
        return with_cosines((a * b).sum(axis=-1), (a * a).sum(axis=-1), (b * b).sum(axis=-1))[..., 1]

    np.testing.assert_allclose(of(jnp.asarray(a), jnp.asarray(b)), expected, rtol=1e-5)
    assert of(jnp.zeros(4), b[0]) == 0 and np.isfinite(jax.grad(of)(jnp.zeros(4), jnp.zeros(4))).all()


def prepared(change=None, mesh=None, rows=ROWS):
    """A config with the matching model, items, and a batch with an empty history and a row of weight 0."""
    model = SYSTEMS["matching"]["model"] | (change or {})
    config = resolved_config({"model": model})
    rng, features = np.random.default_rng(1), config.features
    tags, vectors = features.item_features
    items = {
        tags.name: rng.integers(0, tags.vocab_size, (features.num_items, 2)).astype(np.int32),
        vectors.name: rng.normal(size=(features.num_items, vectors.dim)).astype(np.float32),
    }
    for table in items.values():
        table[0] = 0  # padding
    batch = random_batch(rng, rows)
    batch["side"] = {f.name: rng.integers(0, f.vocab_size, rows).astype(np.int32) for f in features.side}
    mesh = mesh or make_mesh()
    return config, put_items(items, mesh, config), batch, mesh


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 3.0])
def test_the_contrastive_loss_trains_beside_the_logloss_and_is_not_reported_as_it(weight):
    still = {"click_dropout": 0.0, "id_dropout": 0.0, "dropout": 0.0}
    config, items, batch, mesh = prepared(still | {"contrastive": weight})
    state = init_state(config, items, mesh)

    def losses(params):
        """The logloss, and what the model says of its own."""
        logits, own = model_of(config).apply({"params": params}, batch, items, train=True, mutable=["losses"])
        logloss = summed_bce(logits, batch["label"], batch["weight"]) / batch["weight"].sum()
        return logloss, sum(jax.tree.leaves(own), jnp.zeros(()))

    logloss, own = losses(state.params)
    gradients = jax.grad(lambda params: sum(losses(params)))(state.params)
    expected = {f"{tower}/out": optax.tree.norm(gradients[tower]["out"]) for tower in ("user", "item")}
    _, metrics = make_train_step(config, mesh)(state, batch, items, np.float32(0.01))
    np.testing.assert_allclose(metrics["loss"], logloss, rtol=1e-5)
    norms = dict(zip(group_names(state.params), metrics["group_norms"], strict=True))
    for name, norm in expected.items():
        np.testing.assert_allclose(norms[name], norm, rtol=1e-3)
    assert (own > 0) == (weight > 0)


def test_the_softmax_is_over_the_targets_of_all_devices():
    """One step on eight devices, each with two rows, moves the towers as one device with all sixteen does."""
    found = []
    for devices in (8, 1):
        mesh = make_mesh(jax.devices()[:devices])
        config, items, batch, mesh = prepared(mesh=mesh, rows=16)
        batch = next(on_devices(iter([batch]), mesh))
        assert len(batch["item"].sharding.device_set) == devices
        _, metrics = make_train_step(config, mesh)(init_state(config, items, mesh), batch, items, np.float32(0.01))
        found.append([metrics["loss"], *metrics["group_norms"]])
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-6)  # the gradient of the keys' bias is rounding alone


def test_more_padding_changes_no_logit():
    config, items, batch, mesh = prepared()
    state = init_state(config, items, mesh)
    # Larger weights than at the start, so that every part counts.
    params = jax.tree.map(lambda x: x + 0.1 * jnp.arange(x.size).reshape(x.shape) / x.size, state.params)
    predict = make_predict_step(config, mesh)
    wider = batch | {"history": np.pad(batch["history"], ((0, 0), (2, 0)))}
    logits = [predict(params, {}, b, items) for b in (batch, wider)]
    np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-6)
    assert np.ptp(logits[0]) > 1e-3
