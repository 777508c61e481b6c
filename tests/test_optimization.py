"""Optimisers are optax's, schedules their formulas; weight decay touches what it names, and an average is one."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import make_items
from synthetic import raw_config, resolved_config

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError
from mmctr_jax.models import live
from mmctr_jax.optimization import OPTIMIZERS, SCHEDULES, norms
from mmctr_jax.optimization.optimizers import SGD, Adam, AdamW
from mmctr_jax.optimization.schedules import Constant, Cosine, OnPlateau, Warmup
from mmctr_jax.optimization.weight_decay import WeightDecay
from mmctr_jax.training.step import moving_average, parameter_shapes

RATE = 0.05


def tree(rng):
    """A table, a matrix and a bias."""
    return {
        "embedding": {"item_id": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)},
        "head": {
            "kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=2), jnp.float32),
        },
    }


def steps(optimizer, decay=None, count=4):
    """Parameters after some steps, each with other gradients."""
    rng = np.random.default_rng(0)
    params = tree(rng)
    state = optimizer.init(params)
    rate = (decay or WeightDecay()).rate(optimizer.weight_decay)
    for _ in range(count):
        params, state = optimizer.update(tree(rng), state, params, jnp.float32(RATE), decay_rate=rate)
    return params


def steps_of_optax(optimizer, count=4):
    rng = np.random.default_rng(0)
    params = tree(rng)
    state = optimizer.init(params)
    for _ in range(count):
        updates, state = optimizer.update(tree(rng), state, params)
        params = optax.apply_updates(params, updates)
    return params


def assert_near(ours, theirs, atol=1e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), ours, theirs)


def matrices(params):
    return jax.tree.map(lambda p: p.ndim == 2, params)


ARGUMENTS = {
    "adam": [{}, {"b1": 0.5, "b2": 0.9, "eps": 1e-3}],
    "adamw": [{}, {"b1": 0.5}],
    "adagrad": [{}, {"initial_accumulator_value": 0.5, "eps": 1e-3}],
    "lamb": [{}, {"b2": 0.9}],
    "lion": [{}, {"b1": 0.5, "b2": 0.7}],
    "sgd": [{}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
}


@pytest.mark.parametrize(("name", "arguments"), [(name, a) for name in OPTIMIZERS for a in ARGUMENTS[name]])
def test_an_optimiser_is_optaxs_own_with_the_same_defaults(name, arguments):
    """What decays in optax's own decays here, too, except biases."""
    decays = {"mask": matrices} if name in ("adamw", "lamb", "lion") else {}
    theirs = getattr(optax, name)(RATE, **arguments, **decays)
    assert_near(steps(OPTIMIZERS[name](**arguments)), steps_of_optax(theirs))


@pytest.mark.parametrize(("large", "rows"), [(2**18, 2**15), (6, 4)])
def test_norms_are_those_of_layers_and_tables(large, rows, monkeypatch):
    """Of arrays that are laid side by side, and of those that are large enough for a reduction of their own."""
    monkeypatch.setattr(norms, "_LARGE", large)
    monkeypatch.setattr(norms, "_ROWS", rows)
    grads = tree(np.random.default_rng(0)) | {"deep": {"layer_0": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}}}
    expected = {
        "embedding/item_id": np.square(grads["embedding"]["item_id"]).sum(),
        "head/kernel": np.square(grads["head"]["kernel"]).sum(),
        "head/bias": np.square(grads["head"]["bias"]).sum(),
        "deep/layer_0": 9.0,
    }
    found = dict(zip(norms.group_names(grads), norms.squares_by_group(grads), strict=True))
    assert found == pytest.approx(expected, rel=1e-6)


def test_clipping_scales_all_gradients_to_one_norm():
    grads = tree(np.random.default_rng(0))
    norm = float(optax.tree.norm(grads))
    clipped, reported = norms.clipped(grads, norm / 3)
    assert float(reported) == pytest.approx(norm, rel=1e-6)
    assert_near(clipped, jax.tree.map(lambda g: g / 3, grads))
    assert_near(norms.clipped(grads, 2 * norm)[0], grads)


@pytest.mark.parametrize(("name", "add_live"), [*((name, live.add) for name in OPTIMIZERS), ("adam", live.add_at_once)])
def test_a_narrowed_gradient_is_the_whole_one_with_zeros(name, add_live):
    """Of the parameters of the model that histories of one click need; five steps, so that the moments are in play."""
    rng, optimizer = np.random.default_rng(0), OPTIMIZERS[name]()
    config = resolved_config()
    leading = live.leading_columns(config.features, config.model)
    items = make_items(rng)
    small = config.model_copy(update={"model": config.model.narrowed(1)})
    whole, narrow = (parameter_shapes(c, items) for c in (config, small))
    assert whole["cross"]["layer_0"]["kernel"].shape != narrow["cross"]["layer_0"]["kernel"].shape

    def draw(shapes):
        return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), shapes)

    def add(x, g):
        return add_live(x, g, leading)

    @jax.jit
    def step(grads, narrowed, state, padded, same):
        filled = jax.tree.map(lambda p, g: add(jnp.zeros_like(p), g), padded, grads)
        return (
            *optimizer.update(grads, state, narrowed, jnp.float32(RATE), add),
            *optimizer.update(filled, same, padded, jnp.float32(RATE)),
        )

    narrowed = padded = draw(whole)
    state = same = jax.jit(optimizer.init)(narrowed)
    for _ in range(5):
        narrowed, state, padded, same = step(draw(narrow), narrowed, state, padded, same)
    assert_near((narrowed, state), (padded, same))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_touches_the_group_that_it_names_and_nothing_else(name):
    optimizer, decay = OPTIMIZERS[name](), {"tables": 0.0, "matrices": 0.0}
    free = steps(optimizer, WeightDecay(**decay))
    for group, section, parameter in (("tables", "embedding", "item_id"), ("matrices", "head", "kernel")):
        decayed = steps(optimizer, WeightDecay(**decay | {group: 0.5}))
        changed = jax.tree.map(lambda x, y: bool((x != y).any()), free, decayed)
        expected = jax.tree.map(lambda _: False, free)
        expected[section][parameter] = True
        assert changed == expected


@pytest.mark.parametrize("name", ["adam", "adagrad", "lion", "sgd"])
def test_a_step_decays_by_the_rate_times_the_learning_rate(name):
    """LAMB scales what decays with all else of a layer; there optax's own is the measure."""
    optimizer, start = OPTIMIZERS[name](), tree(np.random.default_rng(0))
    free, decayed = (steps(optimizer, WeightDecay(tables=t, matrices=m), 1) for t, m in ((0, 0), (0.1, 0.2)))
    lost = jax.tree.map(lambda x, y: x - y, free, decayed)
    assert_near(lost["embedding"]["item_id"], 0.1 * RATE * start["embedding"]["item_id"])
    assert_near(lost["head"]["kernel"], 0.2 * RATE * start["head"]["kernel"])
    assert_near(lost["head"]["bias"], jnp.zeros(2), atol=0)


def test_lambs_weight_decay_is_optaxs():
    decay = WeightDecay(tables=0.3, matrices=0.3)
    assert_near(steps(OPTIMIZERS["lamb"](), decay), steps_of_optax(optax.lamb(RATE, weight_decay=0.3, mask=matrices)))


def test_a_rate_that_is_not_named_is_the_optimisers_own():
    assert_near(steps(AdamW()), steps(Adam(), WeightDecay(tables=1e-4, matrices=1e-4)), atol=0)
    assert_near(steps(AdamW(), WeightDecay(tables=0, matrices=0)), steps(Adam()), atol=0)


def test_an_average_weighs_what_was_n_steps_ago_by_the_decay_to_the_n():
    rng, decay = np.random.default_rng(0), 0.9
    weights = rng.normal(size=(7, 3)).astype(np.float32)
    averaged = {"w": jnp.asarray(rng.normal(size=3), jnp.float32)}  # of no consequence
    for step, w in enumerate(weights, 1):
        averaged = moving_average(averaged, {"w": jnp.asarray(w)}, jnp.int32(step), decay)
        expected = np.average(weights[:step].astype(np.float64), axis=0, weights=decay ** np.arange(step)[::-1])
        np.testing.assert_allclose(averaged["w"], expected, rtol=0, atol=1e-6)


def test_an_average_is_right_where_float32_is_coarse():
    averaged, decay = jnp.zeros(1), 0.9999
    for step in (1, 2, 3):
        averaged = moving_average(averaged, jnp.full(1, float(step)), jnp.int32(step), decay)
    expected = np.average([1, 2, 3], weights=[decay**2, decay, 1])
    np.testing.assert_allclose(averaged, expected, rtol=1e-6)


def test_schedules_by_hand():
    assert [Constant().factor(epoch) for epoch in (0.01, 5.0)] == [1, 1] == [OnPlateau().factor(e) for e in (0.1, 9)]
    assert [Warmup(warmup_epochs=2).factor(epoch) for epoch in (0.5, 1, 2, 3)] == [0.25, 0.5, 1, 1]
    cosine = Cosine(epochs=5, warmup_epochs=1, final_factor=0.2)
    expected = {0.25: 0.25, 1: 1, 2: 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2, 3: 0.6, 5: 0.2, 8: 0.2}
    for epoch, factor in expected.items():
        assert cosine.factor(epoch) == pytest.approx(factor)
    assert Cosine().resolved(epochs=4).factor(2) == pytest.approx(0.5)


def test_cosine_is_optaxs_own():
    """Theirs begins at step 0 with nothing, ours with the first share of the warm-up."""
    theirs = optax.warmup_cosine_decay_schedule(0.0, 1.0, warmup_steps=10, decay_steps=50, end_value=0.1)
    ours = Cosine(epochs=5, warmup_epochs=1, final_factor=0.1)
    for step in range(1, 51):
        assert ours.factor(step / 10) == pytest.approx(float(theirs(step)), abs=1e-6)


def config_of(**train):
    return parse_config({"data": raw_config(Path("unused"))["data"], "train": train})


def test_a_name_alone_is_short_for_its_defaults():
    config = config_of(optimizer="sgd", schedule="warmup")
    assert config.train.optimizer == SGD() and config.train.schedule == Warmup()
    assert config_of(optimizer={"b1": 0.8}).train.optimizer == Adam(b1=0.8)
    assert config_of().train.optimizer == Adam() and config_of().train.schedule == OnPlateau()


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"optimizer": {"name": "sgd", "nesterov": True}}, "train.optimizer.momentum"),
        ({"schedule": {"name": "cosine", "epochs": 2, "warmup_epochs": 2}}, "train.schedule.warmup_epochs 2"),
        ({"schedule": {"name": "cosine", "warmup_epochs": 3}, "epochs": 3}, "train.schedule.warmup_epochs 3"),
        ({"schedule": "constant", "lr_factor": 0.5}, "train.lr_factor is for the schedule plateau"),
        ({"schedule": "cosine", "min_learning_rate": 0.0}, "train.min_learning_rate is for the schedule plateau"),
        ({"ema": 1.0}, "train.ema"),
        ({"weight_decay": {"tables": -0.1}}, "train.weight_decay.tables"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(train, words):
    with pytest.raises(InputError) as error:
        config_of(**train)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("classes", [OPTIMIZERS, SCHEDULES])
def test_names_are_those_in_the_tables(classes):
    assert {name: settings().name for name, settings in classes.items()} == {name: name for name in classes}
