"""What the model must do whatever its weights are."""

from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from batches import LENGTHS, make_batch, make_items, randomised, rows_of
from synthetic import (
    DIM,
    ITEMS,
    MAX_HISTORY,
    PUBLISHED,
    SYSTEMS,
    TAGS,
    mean_bce,
    merged,
    model_of,
    resolved_config,
    width_of,
)

from benchmarks import clipped_adam as optimizer
from mmctr_jax.config import load_config
from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.models.embedding import lookup, mean_of_listed
from mmctr_jax.models.masking import attended_positions
from mmctr_jax.models.similarity import cosines, histogram
from mmctr_jax.models.transformer import max_over_positions
from mmctr_jax.training.step import init_state

NO_DROPOUT = {"model": {"transformer": {"dropout": 0.0}, "dcn": {"deep_dropout": 0.0}}}


def fresh_rng():
    """For tests that share a `Case`: what they draw depends on no other test."""
    return np.random.default_rng(7)


class Case:
    def __init__(self, change=None, seed=0, items=None):
        rng = self.rng = np.random.default_rng(seed)
        self.config = resolved_config(change)
        self.model = model_of(self.config)
        self.items = items or make_items(rng)
        shapes = jax.eval_shape(self._init, self.items)
        self.params = randomised(shapes.params, rng)
        self.batch_stats = jax.tree_util.tree_map_with_path(
            lambda path, x: (jnp.ones if path[-1].key == "var" else jnp.zeros)(x.shape), shapes.batch_stats
        )
        self._apply = jax.jit(
            lambda p, b, i: self.model.apply({"params": p, "batch_stats": self.batch_stats}, b, i, train=False)
        )

    def _init(self, items):
        return init_state(self.config, items, make_mesh(jax.devices()[:1]))

    @cached_property
    def fresh(self):
        """Parameters as training begins with them."""
        return self._init(self.items).params

    def logits(self, batch, params=None, items=None):
        return np.asarray(self._apply(params or self.params, batch, items or self.items))


@pytest.fixture(scope="module", params=["valid", "released"])
def either(request):
    return Case({"model": {"history_mask": request.param}})


@pytest.fixture(scope="module", params=SYSTEMS)
def system(request):
    return Case(SYSTEMS[request.param])


@pytest.fixture(scope="module")
def valid():
    return Case()


@pytest.fixture(scope="module")
def released():
    return Case({"model": {"history_mask": "released"}})


def test_the_published_configuration_has_267_898_881_parameters():
    config = load_config(PUBLISHED)
    items = {"item_tags": jnp.zeros((91_718, 5), jnp.int32), "item_emb_d128": jnp.zeros((91_718, 128))}
    state = jax.eval_shape(lambda i: init_state(config, i, make_mesh()), items)
    assert state.params["cross"]["layer_0"]["kernel"].shape == (9088, 9088)
    assert sum(x.size for x in jax.tree.leaves(state.params)) == 267_898_881


def test_padding_never_changes_a_prediction(valid):
    batch = make_batch(fresh_rng())
    wider = {**batch, "history": np.pad(batch["history"], ((0, 0), (6, 0)))}
    narrower = rows_of(batch, slice(5)) | {"history": batch["history"][:5, -5:]}
    logits = valid.logits(batch)
    np.testing.assert_allclose(valid.logits(wider), logits, rtol=0, atol=2e-5)
    np.testing.assert_allclose(valid.logits(narrower), logits[:5], rtol=0, atol=2e-5)


def test_a_batch_may_come_in_any_order_and_in_parts(either):
    batch = make_batch(fresh_rng())
    logits = either.logits(batch)
    order = fresh_rng().permutation(len(logits))
    np.testing.assert_allclose(either.logits(rows_of(batch, order)), logits[order], rtol=0, atol=2e-5)
    one = rows_of(batch, slice(3, 4))
    np.testing.assert_allclose(either.logits(one), logits[3:4], rtol=0, atol=2e-5)


def test_every_system_sees_history_target_and_levels_each_row_alone_and_no_padding(system):
    batch = make_batch(fresh_rng(), [1, 3, MAX_HISTORY] * 4)
    logits = system.logits(batch)
    order = fresh_rng().permutation(len(logits))
    shuffled = system.logits(rows_of(batch, order))
    np.testing.assert_allclose(shuffled, logits[order], rtol=0, atol=2e-5)
    wider = system.logits({**batch, "history": np.pad(batch["history"], ((0, 0), (6, 0)))})
    np.testing.assert_allclose(wider, logits, rtol=0, atol=2e-5)
    others = np.where(batch["history"] != 0, batch["history"] % (ITEMS - 1) + 1, 0)
    for change in (
        {"history": others},
        {"item": batch["item"] % (ITEMS - 1) + 1},
        {"side": {name: (values + 1) % 11 for name, values in batch["side"].items()}},
    ):
        changed = system.logits({**batch, **change}) != logits
        assert changed.sum() > len(logits) / 2, change  # a few rows may lie where every ReLU of the head is at rest


def test_dice_takes_its_statistics_over_real_clicks_of_real_rows():
    """Filling rows and padding positions, whatever is in them, leave the running means as they were."""
    case = Case(SYSTEMS["din_dice"])
    batch = make_batch(fresh_rng(), [2, 5, 3, 4])
    batch["weight"][3] = 0
    wider = {**batch, "history": np.pad(batch["history"], ((0, 0), (4, 0)))}
    other = {**batch, "history": batch["history"].copy(), "item": batch["item"].copy()}
    other["history"][3], other["item"][3] = 9, 9
    variables = {"params": case.params, "batch_stats": case.batch_stats}

    @jax.jit
    def statistics(b):
        return case.model.apply(variables, b, case.items, train=True, mutable=["batch_stats"])[1]

    expected = statistics(batch)
    for b in (wider, other):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-6), statistics(b), expected)
    with pytest.raises(AssertionError):  # and they are of something
        jax.tree.map(np.testing.assert_array_equal, expected["batch_stats"], case.batch_stats)


def test_cosines_and_their_histogram_by_hand():
    features = resolved_config().features
    vectors = np.zeros((6, DIM), np.float32)
    vectors[1, 0], vectors[2, 0], vectors[3, 1], vectors[4, :2] = 2, -1, 3, 1  # item 5 has none
    batch = {"history": np.array([[0, 1, 2, 3], [4, 5, 1, 1], [0, 0, 0, 0]]), "item": np.array([1, 1, 1])}
    c = cosines(batch, {"item_emb_d8": jnp.asarray(vectors)}, features)
    np.testing.assert_allclose(c[..., 0], [[0, 1, -1, 0], [2**-0.5, 0, 1, 1], [0, 0, 0, 0]], atol=1e-6)
    third = 1 / 3
    expected = [[third, 0, third, third], [0, 0, 0.25, 0.75], [0, 0, 0, 0]]  # [-1, -.5), [-.5, 0), [0, .5), [.5, 1]
    np.testing.assert_allclose(histogram(c, batch["history"], 4), expected, atol=1e-6)
    assert histogram(c, batch["history"], 0).shape == (3, 0)


def test_history_target_tags_vectors_and_levels_all_matter():
    valid = Case({"model": {"head": []}})  # its few ReLUs may all be at rest for a sample
    batch = make_batch(valid.rng)
    logits = valid.logits(batch)
    real = batch["history"] != 0
    others = np.where(real, batch["history"] % (ITEMS - 1) + 1, 0)
    changed = valid.logits({**batch, "history": others}) != logits
    assert changed.tolist() == [length > 0 for length in LENGTHS]
    assert (valid.logits({**batch, "item": batch["item"] % (ITEMS - 1) + 1}) != logits).all()
    for column, values in batch["side"].items():
        side = batch["side"] | {column: (values + 1) % 11}
        assert (valid.logits({**batch, "side": side}) != logits).all()
    for name, other in (
        ("item_emb_d8", -valid.items["item_emb_d8"]),
        ("item_tags", (valid.items["item_tags"] + 1) % TAGS),
    ):
        assert (valid.logits(batch, items={**valid.items, name: other}) != logits).all(), name


def test_the_order_of_the_last_k_clicks_matters_and_no_other(valid):
    """No positional encoding: attention and max-pool see a set; only the last K outputs know their place."""
    batch = make_batch(fresh_rng(), [MAX_HISTORY] * 4)
    logits = valid.logits(batch)
    early, late = batch["history"].copy(), batch["history"].copy()
    early[:, :7] = early[:, 6::-1]
    late[:, 7:] = late[:, :6:-1]
    np.testing.assert_allclose(valid.logits({**batch, "history": early}), logits, rtol=0, atol=2e-5)
    assert (np.abs(valid.logits({**batch, "history": late}) - logits) > 1e-4).all()


def test_released_mask_sees_only_the_length_of_a_history_shorter_than_n(released):
    """Replace every clicked item: logits stay bit-identical. Add a click: they change. A full history is seen."""
    batch = make_batch(fresh_rng())
    logits = released.logits(batch)
    others = np.where(batch["history"] != 0, batch["history"] % (ITEMS - 1) + 1, 0)
    same = released.logits({**batch, "history": others}) == logits
    assert same.tolist() == [length < MAX_HISTORY for length in LENGTHS]
    longer = batch["history"].copy()
    longer[2, -3] = 7  # length 2 → 3: one padding position fewer among the last K
    assert abs(released.logits({**batch, "history": longer})[2] - logits[2]) > 1e-4


def test_attended_positions_by_hand():
    history = jnp.array([[0, 0, 0], [0, 0, 5], [0, 4, 5], [3, 4, 5]])
    assert attended_positions(history, "valid").astype(int).tolist() == [[0, 0, 1], [0, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert attended_positions(history, "released").astype(int).tolist() == [[1, 1, 1], [1, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_an_empty_history_is_finite_forward_and_backward(either):
    batch = make_batch(fresh_rng(), [0, 0, 0])
    assert np.isfinite(either.logits(batch)).all()
    grads = jax.jit(jax.grad(lambda p: either._apply(p, batch, either.items).sum()))(either.params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_a_nan_in_an_ignored_item_reaches_no_logit_and_no_gradient():
    """The item that only padding could show: poison row 0 of the frozen vectors."""
    case = Case(seed=3)
    batch = make_batch(case.rng, [1, 2, 5])
    poisoned = {**case.items, "item_emb_d8": case.items["item_emb_d8"].copy()}
    poisoned["item_emb_d8"][0] = np.nan
    assert np.isfinite(case.logits(batch, items=poisoned)).all()
    grads = jax.jit(jax.grad(lambda p: case._apply(p, batch, poisoned).sum()))(case.params)
    bad = [jax.tree_util.keystr(k) for k, g in jax.tree_util.tree_leaves_with_path(grads) if not np.isfinite(g).all()]
    assert bad == []


def test_a_nan_in_a_clicked_item_that_the_released_mask_ignores_reaches_no_logit(released):
    batch = make_batch(fresh_rng(), [1, 2, 5])
    poisoned = {**released.items, "item_emb_d8": released.items["item_emb_d8"].copy()}
    poisoned["item_emb_d8"][7] = np.nan
    batch["history"][:, -1], batch["item"][:] = 7, 8
    assert np.isfinite(released.logits(batch, items=poisoned)).all()


def test_the_max_pool_passes_its_whole_gradient_to_one_position_each():
    """Equal positions (a click repeated, padding) must not share it: what is compared twice may differ in rounding."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 6, 5))
    x[0, 1:4], x[1] = x[0, 0], x[1, 0]
    x[2, 0] = np.nan  # not attended
    attended = np.array([[1] * 6, [0, 1, 1, 1, 1, 0], [0, 0, 1, 0, 1, 1]], bool)[..., None]
    weights = rng.normal(size=(3, 5))
    pooled = max_over_positions(jnp.asarray(x), attended)
    grad = jax.jit(jax.grad(lambda x: (max_over_positions(x, attended) * weights).sum()))(x)
    np.testing.assert_allclose(pooled, np.where(attended, x, -np.inf).max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(grad.sum(axis=1), weights, rtol=1e-6)
    assert ((grad != 0).sum(axis=1) == 1).all() and not np.asarray(grad)[~attended[..., 0]].any()


def test_a_mean_without_tags_is_zero_with_a_finite_gradient():
    table = jnp.ones((4, 3))
    tags = jnp.array([[0, 0], [1, 0], [2, 2]])
    mean = lambda t: mean_of_listed(lookup(t, tags, jnp.float32), tags)  # noqa: E731
    assert mean(table).tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    grad = jax.grad(lambda t: mean(t).sum())(table)
    assert grad[:, 0].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    "change",
    [{}, {"model": {"history_mask": "released"}}, {"model": {"dcn": {"batch_norm": True}}}, *SYSTEMS.values()],
)
def test_gradient_reaches_every_parameter_that_should_learn_and_no_padding_row(change):
    """Training mode, a loss over real labels, a NaN behind the padding; then Adam: without a gradient none moves.

    And a batch without a single click gives finite gradients and statistics.
    """
    case = Case(change)
    batch = make_batch(case.rng, [0, 1, 4, MAX_HISTORY, MAX_HISTORY, 3] * 6)
    poisoned = {**case.items, "item_emb_d8": case.items["item_emb_d8"].copy()}
    poisoned["item_emb_d8"][0] = np.nan
    poisoned = jax.tree.map(jnp.asarray, poisoned)

    @jax.jit
    def gradients(params, batch):
        def loss(params):
            logits, updates = case.model.apply(
                {"params": params, "batch_stats": case.batch_stats},
                batch,
                poisoned,
                train=True,
                rngs={"dropout": jax.random.PRNGKey(0)},
                mutable=["batch_stats"],
            )
            return mean_bce(logits, batch["label"], batch["weight"]), updates

        return jax.grad(loss, has_aux=True)(params)

    cold = gradients(case.params, {**batch, "history": np.zeros_like(batch["history"])})
    grads, updates = gradients(case.params, batch)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((cold, grads, updates)))
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert np.abs(grad).max() > 0, f"nothing reaches {jax.tree_util.keystr(path)}"
    tables = {n: g for n, g in grads["embedding"].items() if not isinstance(g, dict)}
    assert set(tables) >= {"item_id", "item_tags", "likes_level", "views_level"}
    for name, grad in tables.items():
        assert not np.asarray(grad[0]).any(), name
    adam = jax.jit(
        lambda grads, params: optimizer.update(grads, optimizer.init(params), params, jnp.float32(0.1), 10.0)
    )
    moved, _, _ = adam(tables, {name: case.params["embedding"][name] for name in tables})
    for name, table in moved.items():
        assert not np.asarray(table[0]).any(), name


def test_fresh_tables_have_the_stated_deviation_and_zero_padding_rows():
    case = Case(merged(SYSTEMS["codes"], {"model": {"embedding_dim": 40, "embedding_init_std": 0.01}}))
    tables = {name: np.asarray(w) for name, w in case.fresh["embedding"].items() if not isinstance(w, dict)}
    assert set(tables) == {"item_id", "item_tags", "codes", "likes_level", "views_level"}
    for name, table in tables.items():
        assert not table[0].any(), name
        assert table[1:].std() == pytest.approx(0.01, rel=0.2), name


@pytest.mark.parametrize(
    "change",
    [
        {"model": {"transformer": {"first_k": 0, "layers": 2}}},
        {"model": {"transformer": {"first_k": MAX_HISTORY + 4}}},
        {"model": {"transformer": {"layers": 0, "max_pool": False}}},
        {"model": {"transformer": {"heads": 4}, "project_mm": False, "dcn": {"cross_layers": 0}}},
        {"model": {"dcn": {"deep": [], "batch_norm": True}, "head": []}},
        {"train": {"precision": "bfloat16"}},
    ],
)
def test_every_option_gives_finite_logits(change):
    case = Case(change)
    batch = make_batch(case.rng)
    logits = case.logits(batch)
    assert logits.shape == (len(LENGTHS),) and np.isfinite(logits).all() and np.ptp(logits) > 0


def test_bfloat16_is_near_float32_and_keeps_float32_parameters(valid):
    case = Case({"train": {"precision": "bfloat16"}})
    assert {w.dtype for w in jax.tree.leaves(case.fresh)} == {jnp.dtype("float32")}
    batch = make_batch(case.rng)
    exact, rounded = valid.logits(batch), case.logits(batch, params=valid.params, items=valid.items)
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max() + 0.05
    # The logit itself has float32's resolution: bfloat16 would tie most of 400 scores together.
    many = make_batch(case.rng, case.rng.integers(0, MAX_HISTORY + 1, 400))
    apart = [len(np.unique(c.logits(many, valid.params, valid.items))) for c in (valid, case)]
    assert min(apart) > 350 and apart[1] > 0.98 * apart[0]


def test_another_feature_is_a_line_in_the_config():
    features = {
        "side": [{"name": "age", "vocab_size": 11}, {"name": "country", "vocab_size": 11}],
        "item_features": [
            {"kind": "categorical", "name": "category", "vocab_size": 7},
            {"kind": "embedding", "name": "text", "dim": 3},
            {"kind": "embedding", "name": "picture", "dim": 5},
        ],
    }
    rng = np.random.default_rng(0)
    items = {"category": rng.integers(0, 7, ITEMS).astype(np.int32)}
    items |= {name: rng.normal(size=(ITEMS, dim)).astype(np.float32) for name, dim in (("text", 3), ("picture", 5))}
    case = Case({"features": features}, items=items)
    assert width_of(case.config) == 4 + 4 + 3 + 5
    assert set(case.params["embedding"]) == {"age", "country", "item_id", "category", "text", "picture"}
    batch = make_batch(rng)
    batch["side"] = dict(zip(("age", "country"), batch["side"].values(), strict=True))
    for name in items:
        changed = {**items, name: np.roll(items[name], 1, axis=0)}
        assert (case.logits(batch, items=changed) != case.logits(batch)).all()


def test_without_any_side_or_item_feature():
    case = Case({"features": {"side": [], "item_features": []}}, items={"unused": np.zeros(1)})
    logits = case.logits({**make_batch(case.rng), "side": {}})
    assert np.isfinite(logits).all() and np.ptp(logits) > 0
