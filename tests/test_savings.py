"""What is not computed changes nothing: every saving equals the whole, padded computation, forward and backward.

In float64, so that equal means equal and not near.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import make_batch, make_items, randomised
from compiling import AS_FOR_USERS
from marks import few, slow
from synthetic import ITEMS, MAX_HISTORY, SYSTEMS, merged, model_of, resolved_config, width_of

from benchmarks import clipped_adam as optimizer
from mmctr_jax.devices.collectives import collectives
from mmctr_jax.devices.sharding import make_mesh, put_batch, put_replicated
from mmctr_jax.models import attention as attention_module
from mmctr_jax.models import live
from mmctr_jax.models.attention import Attention
from mmctr_jax.models.linear import SharedDense
from mmctr_jax.training import step as step_module
from mmctr_jax.training.step import (
    init_state,
    make_narrow,
    make_predict_step,
    make_train_step,
    narrowed,
    parameter_shapes,
    summed_bce,
)

FEW_LAYERS = {"model": {"dcn": {"cross_layers": 1, "deep": [8]}}}  # compiled sooner
NO_DROPOUT = {"model": {"transformer": {"dropout": 0.0}, "dcn": {"deep_dropout": 0.0}}}
CHANGES = {
    "k beyond n, heads, no pool": {
        "model": {"transformer": {"first_k": MAX_HISTORY + 3, "heads": 2, "layers": 2, "max_pool": False}}
    },
    "similarity, target attention, no head": {
        "model": {
            "transformer": {"similarity": True, "target_attention": 1},
            "dcn": {"similarity_bins": 4},
            "head": [],
        }
    },
    "no deep": {"model": {"dcn": {"deep": []}}},
    "low-rank cross layers": {"model": {"dcn": {"rank": 3}}},
    "batch norm": {"model": {"dcn": {"batch_norm": True}}},
    "without_dcn": {"model": SYSTEMS["without_dcn"]["model"] | {"head": []}},
    "without_transformer": SYSTEMS["without_transformer"],
    "din": SYSTEMS["din"],
}


def without_dropout(change):
    model = resolved_config(change).model
    off = {"transformer": {"dropout": 0.0}, "dcn": {"deep_dropout": 0.0}}
    off = {section: values for section, values in off.items() if hasattr(model, section)}
    return resolved_config(change | {"model": merged(off, change.get("model", {}))})


def doubles(tree):
    return jax.tree.map(lambda x: jnp.asarray(x.astype(float) if x.dtype.kind == "f" else x), tree)


@pytest.fixture
def float64(monkeypatch):
    monkeypatch.setitem(step_module._COMPUTE_DTYPE, "float32", jnp.float64)
    with jax.enable_x64(True):
        yield


def padded(batch, width):
    history = batch["history"]
    return batch | {"history": np.pad(history, ((0, 0), (max(width - history.shape[1], 0), 0)))[:, -width:]}


QUICK = "similarity, target attention, no head", "low-rank cross layers", "din"


@pytest.mark.parametrize("change", few(CHANGES, QUICK), ids=CHANGES)
def test_a_batch_at_the_length_it_needs_equals_the_padded_one(change, float64):
    """Losses, and the gradients of all parameters of the whole model, those that the narrowed one has not included."""
    config, rng, length = without_dropout(change), np.random.default_rng(3), 2
    items, batch = doubles(make_items(rng)), make_batch(rng, [2, 1, 0, 2, 0, 1])
    shapes = jax.eval_shape(lambda items: init_state(config, items, make_mesh(jax.devices()[:1])), items)
    params = doubles(randomised(shapes.params, rng))
    small = narrowed(config, length)
    leading = live.leading_columns(config.features, config.model)
    needed = parameter_shapes(small, items)
    cut = jax.jit(partial(jax.tree.map, lambda like, x: live.cut(x, like.shape, leading), needed))(params)
    widen = jax.jit(partial(jax.tree.map, lambda x, g: live.add(jnp.zeros_like(x), g, leading), params))
    statistics = doubles(jax.tree.map(lambda x: jnp.ones(x.shape), shapes.batch_stats))

    @partial(jax.jit, static_argnums=(0, 3))
    def loss_and_grads(config, params, batch, train):
        def loss(params):
            variables = {"params": params, "batch_stats": statistics}
            logits, _ = model_of(config, jnp.float64).apply(
                variables, batch, items, train=train, mutable=["batch_stats"]
            )
            return summed_bce(logits, batch["label"], batch["weight"])

        return jax.value_and_grad(loss)(params)

    for train in (True, False):
        expected = loss_and_grads(config, params, padded(batch, MAX_HISTORY), train)
        value, part = loss_and_grads(small, cut, padded(batch, length), train)
        np.testing.assert_allclose(value, expected[0], rtol=1e-12)
        jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, rtol=0, atol=1e-12), widen(part), expected[1])


@pytest.mark.parametrize(("l2", "for_gpus"), [slow(0.0, False), slow(0.0, True), (0.1, False)])
def test_steps_at_the_lengths_that_batches_need_equal_padded_ones(l2, for_gpus, float64, monkeypatch):
    """Two steps with Adam: losses, gradient norms, parameters, moments; then the scores of narrowed parameters."""
    if for_gpus:
        monkeypatch.setattr(live, "cut", live.cut_at_once)
        monkeypatch.setattr(live, "add", live.add_at_once)
    config = resolved_config(merged(NO_DROPOUT, {"train": {"net_l2": l2, "embedding_l2": l2}}))
    rng, mesh = np.random.default_rng(3), make_mesh(jax.devices()[:1])
    items = put_replicated(doubles(make_items(rng)), mesh)
    batches = [make_batch(rng, lengths) for lengths in ([4, 1, 3, 0, 2, 4], [2, 1, 0, 2, 0, 1])]
    train_step, predict_step = make_train_step(config, mesh), make_predict_step(config, mesh)
    narrow, fresh = make_narrow(config, mesh), init_state(config, items, mesh)
    params = doubles(randomised(fresh.params, rng))

    def run(widths):
        copies = jax.tree.map(jnp.copy, params)  # a step donates its state
        state, reported = fresh.replace(params=copies, opt_state=optimizer.init(copies), step=jnp.int32(0)), []
        state = jax.tree.map(jnp.copy, state)
        for batch, width in zip(batches, widths, strict=True):
            batch = put_batch(padded(batch, width), mesh)
            state, metrics = train_step(state, batch, items, np.float64(0.01))
            reported.append((float(metrics["loss"]), float(metrics["grad_norm"])))
        enough = narrow(state.params, items, widths[-1])
        return reported, state, predict_step(enough, state.batch_stats, batch, items)

    (reported, state, logits), (expected, whole, theirs) = run([4, 2]), run([MAX_HISTORY] * 2)
    np.testing.assert_allclose(reported, expected, rtol=1e-6)
    np.testing.assert_allclose(logits, theirs, rtol=0, atol=1e-6)
    same = zip(
        jax.tree.leaves((state.params, state.opt_state)), jax.tree.leaves((whole.params, whole.opt_state)), strict=True
    )
    for x, y in same:
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-7)


def test_short_histories_need_less_of_the_model():
    """Otherwise the tests above compare a thing with itself."""
    config = resolved_config()
    K, T = config.model.transformer.first_k, 2 * width_of(config)
    mesh = make_mesh(jax.devices()[:1])
    items = put_replicated(make_items(np.random.default_rng(0)), mesh)
    params = init_state(config, items, mesh).params
    narrow = make_narrow(config, mesh)
    whole = params["cross"]["layer_1"]["kernel"].shape[0]
    for length in range(1, K + 2):
        got = narrow(params, items, length)
        width = whole - max(K - length, 0) * T
        assert got["cross"]["layer_1"]["kernel"].shape == (width, width)
        assert got["deep"]["layer_0"]["kernel"].shape[0] == width
        assert got["head"]["layer_0"]["kernel"].shape[0] == width + config.model.dcn.deep[-1]
        assert got["embedding"]["item_id"].shape == (ITEMS, 4)
        if length >= K:
            assert got is params


@pytest.mark.parametrize("first_k", [0, 3, MAX_HISTORY + 2])
def test_one_padding_position_stands_for_all_under_the_released_mask(first_k, float64):
    """Scoring, against the model as training without dropout computes it: every position."""
    options = {"first_k": first_k, "target_attention": 1, "similarity": True}
    change = {"model": {"history_mask": "released", "transformer": options, "dcn": {"similarity_bins": 4}}}
    config = resolved_config(merged(NO_DROPOUT, change))
    model, rng = model_of(config, jnp.float64), np.random.default_rng(0)
    items = doubles(make_items(rng))
    batch = make_batch(rng, [0, 1, 2, 3, 5, MAX_HISTORY - 1, MAX_HISTORY, MAX_HISTORY])
    shapes = jax.eval_shape(lambda: model.init(jax.random.PRNGKey(0), batch, items, train=False))
    params = doubles(randomised(shapes["params"], rng))
    one, all_of_them = (
        jax.jit(partial(model.apply, train=train))({"params": params}, batch, items) for train in (False, True)
    )
    np.testing.assert_allclose(one, all_of_them, rtol=0, atol=1e-10)


def test_what_is_shared_is_projected_once_and_equals_a_plain_linear(float64):
    rng = np.random.default_rng(0)
    x, shared = jnp.asarray(rng.normal(size=(3, 4, 5))), jnp.asarray(rng.normal(size=(3, 2)))
    joined = jnp.concatenate([x, jnp.broadcast_to(shared[:, None], (3, 4, 2))], axis=-1)
    init = nn.initializers.xavier_uniform()
    ours, plain = SharedDense(6, init, jnp.float64), nn.Dense(6, kernel_init=init, dtype=jnp.float64)
    params = {"kernel": jnp.asarray(rng.normal(size=(7, 6))), "bias": jnp.asarray(rng.normal(size=6))}
    weights = rng.normal(size=(3, 4, 6))

    def value(apply):
        return jax.value_and_grad(lambda p: (apply({"params": p}) * weights).sum())(params)

    for a, b in zip(
        jax.tree.leaves(value(lambda p: ours.apply(p, x, shared))),
        jax.tree.leaves(value(lambda p: plain.apply(p, joined))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    same_start = (layer.init(jax.random.PRNGKey(0), *args) for layer, args in ((ours, (x, shared)), (plain, (joined,))))
    jax.tree.map(np.testing.assert_array_equal, *same_start)


@pytest.mark.parametrize("histories", [3, 1, 0], ids=["each its own", "one for all", "not in parts"])
def test_attention_with_its_matrices_multiplied_first_equals_the_other_form(histories, float64, monkeypatch):
    """Outputs, and the gradients of parameters and input, with dropout, and with positions that nobody attends to."""
    rng, (B, N, D, S) = np.random.default_rng(0), (3, 5, 6, 2)
    history, same = (jnp.asarray(rng.normal(size=shape)) for shape in ((histories or B, N, D), (B, S)))
    attended = jnp.asarray(rng.random((B, N)) < 0.6).at[:, 0].set(True)
    assert not attended.all()
    attention = Attention(1, 0.3, jnp.float64)
    weights = rng.normal(size=(B, N, D + S))

    def apply(method, params, history, same, rngs):
        whole = [jnp.broadcast_to(history, (B, N, D)), jnp.broadcast_to(same[:, None], (B, N, S))]
        parts = (history, same) if histories else None
        return method(params, jnp.concatenate(whole, axis=-1), None, attended, True, parts, rngs=rngs)

    def result(positions):
        monkeypatch.setattr(attention_module, "POSITIONS_A_COLUMN", positions)
        keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
        start = apply(lambda params, *args, rngs: attention.init(rngs, *args), None, history, same, keys)
        params = randomised(start["params"], np.random.default_rng(1))

        def value(params, history, same):
            out = apply(attention.apply, {"params": params}, history, same, keys)
            return (out * weights).sum(), out

        return start, jax.value_and_grad(value, (0, 1, 2), has_aux=True)(doubles(params), history, same)

    (start, values), (their_start, expected) = result(0), result(np.inf)
    jax.tree.map(np.testing.assert_array_equal, start, their_start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), values, expected)


@pytest.mark.parametrize(("cut", "add"), [(live.cut, live.add), (live.cut_at_once, live.add_at_once)])
def test_cutting_and_adding_are_each_others_inverse(cut, add):
    """add(0, cut(x)) is x where the narrowed model is, zero elsewhere; cut(add(0, y)) is y."""
    config = resolved_config({"model": {"transformer": {"first_k": 5}}})
    start = len(config.features.side) * config.model.embedding_dim + width_of(config)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(start + 9, start + 9)))
    kept = np.r_[0:start, start + 4 : start + 9]
    part = cut(x, (start + 5, start + 5), start)
    np.testing.assert_array_equal(part, np.asarray(x)[np.ix_(kept, kept)])
    back = np.array(add(jnp.zeros_like(x), part, start))
    np.testing.assert_array_equal(back[np.ix_(kept, kept)], part)
    back[np.ix_(kept, kept)] = 0
    assert not back.any()


@pytest.mark.slow
def test_the_state_is_updated_in_place(optimised):
    """The compiled step writes every parameter and moment where it was read: beside them it needs less than one copy
    of the parameters, gradients included. (Most of them are cross matrices here, as at the published sizes.)"""
    change = {"model": {"transformer": {"first_k": 20}, "dcn": {"cross_layers": 3, "deep": [8]}}}
    config = resolved_config(merged(NO_DROPOUT, change))
    mesh = make_mesh(jax.devices()[:1])
    rng = np.random.default_rng(0)
    items = put_replicated(make_items(rng), mesh)
    state = init_state(config, items, mesh)
    batch = put_batch(make_batch(rng, [2, 1, 2, 0], width=2), mesh)
    compiled = make_train_step(config, mesh).lower(state, batch, items, np.float32(0.1)).compile(AS_FOR_USERS)
    changing = jax.tree.leaves((state.params, state.opt_state, state.step))
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= sum(x.nbytes for x in changing)
    assert memory.temp_size_in_bytes < sum(x.nbytes for x in jax.tree.leaves(state.params))


@pytest.mark.slow
@pytest.mark.parametrize("width", [4, 2])
def test_eight_devices_exchange_the_gradients_once_and_nothing_else(width, optimised):
    """The compiled step's collectives: one all-reduce of all gradients, with the loss and the batch's weight; of a
    narrowed batch, the narrowed ones."""
    config, mesh = resolved_config(FEW_LAYERS), make_mesh()
    rng = np.random.default_rng(0)
    items = put_replicated(make_items(rng), mesh)
    batch = put_batch(make_batch(rng, rng.integers(0, width + 1, 16), width=width), mesh)
    state = init_state(config, items, mesh)
    compiled = make_train_step(config, mesh).lower(state, batch, items, np.float32(0.1)).compile(AS_FOR_USERS)
    live_ones = make_narrow(config, mesh)(state.params, items, width)
    learned = sum(x.size for x in jax.tree.leaves(live_ones))
    assert collectives(compiled.as_text()) == [("all-reduce", learned + 2)]
