"""Tables that are stepped by rows (`train.tables`): equal to plain numpy, and to dense steps where they should be."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from batches import batch_of_many, features_of_many, make_batch, make_items, table_of_many
from same_run import assert_same_run
from synthetic import DIM, QUICK, config_for, merged, resolved_config
from test_training import StopAt

from mmctr_jax.devices.collectives import collectives
from mmctr_jax.devices.sharding import make_mesh, put_batch, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.optimization import rows as by_row
from mmctr_jax.optimization.rows import LazyAdam, RowAdam, Rows, RowSGD, RowwiseAdagrad
from mmctr_jax.prediction.predictor import Predictor, restore_best
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training import loop as training
from mmctr_jax.training.loop import train
from mmctr_jax.training.step import init_state, make_predicting, make_train_step
from mmctr_jax.training.tables import RowTables
from mmctr_jax.training.warm_start import restored, warm_started

V, E, RATE = 9, 3, 0.05


# The rows of one table, against plain numpy that takes every step of every row


def dense(optimizer, value, grads, decay, ema):
    """Values and averages after steps of the whole table; grads: of each step a dictionary by row."""
    value, average = value.astype(float), np.zeros_like(value, float)
    mu, nu, count, squares = np.zeros_like(value), np.zeros_like(value), np.zeros(V), np.zeros(V)
    for step, named in enumerate(grads, start=1):
        value *= 1 - RATE * decay
        if isinstance(optimizer, RowAdam):
            g = np.array([named.get(row, np.zeros(E)) for row in range(V)])
            mu, nu = optimizer.b1 * mu + (1 - optimizer.b1) * g, 0.999 * nu + 0.001 * g * g
            value -= RATE * mu / (1 - optimizer.b1**step) / (np.sqrt(nu / (1 - 0.999**step)) + 1e-8)
        for row, g in named.items():
            if isinstance(optimizer, LazyAdam):
                count[row] += 1
                mu[row] = 0.9 * mu[row] + 0.1 * g
                nu[row] = 0.999 * nu[row] + 0.001 * g * g
                m_hat, v_hat = mu[row] / (1 - 0.9 ** count[row]), nu[row] / (1 - 0.999 ** count[row])
                value[row] -= RATE * m_hat / (np.sqrt(v_hat) + 1e-8)
            elif isinstance(optimizer, RowwiseAdagrad):
                squares[row] += (g * g).sum() / E
                value[row] -= RATE * g / (math.sqrt(squares[row]) + 1e-8)
            elif isinstance(optimizer, RowSGD):
                value[row] -= RATE * g
        if ema:
            average = (1 - ema) * value + ema * average
    return value, average / (1 - ema ** len(grads)) if ema else None


OPTIMIZERS = {o.optimizer: o for o in (RowAdam(), LazyAdam(), RowwiseAdagrad(), RowSGD())}
OPTIMIZERS["adam without momentum"] = RowAdam(b1=0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("decay", "ema"), [(0.0, None), (0.4, None), (0.0, 0.9), (0.4, 0.9), (2.0, 0.9), (4.0, 0.9)])
def test_rows_end_where_every_step_of_every_row_would_have_led(name, decay, ema):
    """Rows are named in few of the steps; a weight decay of 2 shrinks as fast as the average forgets, 4 faster."""
    optimizer = OPTIMIZERS[name]
    rng = np.random.default_rng(0)
    start = rng.normal(size=(V, E)).astype(np.float32)
    grads = [{row: rng.normal(size=E) for row in rng.permutation(V - 1)[: rng.integers(0, 4)]} for _ in range(40)]
    average = jnp.full((V, E), 7.0) if ema else None  # of no consequence
    table = Rows(jnp.asarray(start), average, jnp.zeros(V, jnp.int32), optimizer.init(jnp.asarray(start)))

    @jax.jit
    def step(table, ids, grads, number):
        rows = by_row.rows_at(table, ids)
        rows = by_row.caught_up(rows, number - 1, optimizer, jnp.float32(RATE), decay, ema)
        rows = by_row.stepped(rows, grads, number, optimizer, jnp.float32(RATE), decay, ema)
        return by_row.with_rows(table, ids, rows)

    for number, named in enumerate(grads, start=1):
        ids = np.array([*sorted(named), *range(V, V + 4 - len(named))], np.int32)
        values = np.array([named.get(row, np.full(E, np.nan)) for row in ids], np.float32)
        table = step(table, ids, values, jnp.int32(number))
    assert (table.seen == table.seen.max()).sum() < V  # rows do lag
    table = by_row.caught_up(table, jnp.int32(len(grads)), optimizer, jnp.float32(RATE), decay, ema)
    value, average = dense(optimizer, start, grads, decay, ema)
    np.testing.assert_allclose(table.value, value, rtol=0, atol=2e-6)
    if ema:
        np.testing.assert_allclose(table.average, average, rtol=0, atol=2e-6)


def test_lazy_adam_is_adam_where_every_step_names_every_row():
    rng = np.random.default_rng(0)
    start = jnp.asarray(rng.normal(size=(V, E)), jnp.float32)
    theirs, value = optax.adam(RATE), start
    state = theirs.init(value)
    rows = Rows(start, None, jnp.zeros(V, jnp.int32), LazyAdam().init(start))
    for step in range(1, 6):
        grads = jnp.asarray(rng.normal(size=(V, E)), jnp.float32)
        rows = by_row.stepped(rows, grads, jnp.int32(step), LazyAdam(), jnp.float32(RATE), 0.0, None)
        updates, state = theirs.update(grads, state)
        value = optax.apply_updates(value, updates)
    np.testing.assert_allclose(rows.value, value, rtol=0, atol=5e-6)  # optax's 1 - b2ⁿ is rounded more


def test_ids_are_named_once_and_filled_up_beyond_the_table():
    ids = jnp.array([[4, 0, 4], [2, 0, 4]])
    np.testing.assert_array_equal(by_row.named(ids, 100), [0, 2, 4, 100 + 3, 100 + 4, 100 + 5])
    np.testing.assert_array_equal(by_row.named(ids, 5)[:3], [0, 2, 4])
    assert by_row.named(ids, 5).shape == (5,)


# In the training step


def trained(change, batches, devices=1, items=None):
    """Losses of each batch, and the weights that predict."""
    config, mesh = resolved_config(merged(QUICK, change)), make_mesh(jax.devices()[:devices])
    on_device = put_items(items or table_of(), mesh, config)
    state, step, losses = init_state(config, on_device, mesh), make_train_step(config, mesh), []
    for batch in batches:
        state, metrics = step(state, put_batch(batch, mesh), on_device, np.float32(0.03))
        losses.append([float(metrics["loss"]), float(metrics["grad_norm"])])
    return np.array(losses), jax.device_get(make_predicting(config, mesh)(state)), state, config, mesh


def table_of():
    items = make_items(np.random.default_rng(0))
    return {name: items[name] for name in ("item_tags", "item_emb_d8")}


def some_batches(count=6):
    rng = np.random.default_rng(1)
    return [make_batch(rng, [2, 1, 2, 0], 2) if i % 2 else make_batch(rng) for i in range(count)]


DECAYING = {"weight_decay": {"tables": 0.5, "matrices": 0.1}, "ema": 0.9, "length_buckets": [2]}


@pytest.mark.slow
def test_gradient_descent_by_rows_is_that_of_whole_tables():
    """With weight decay, an average, dropout of ids, several lengths: the same losses, norms and weights."""
    shared = {"model": {"id_dropout": 0.3, "embedding_init_std": 0.3}}
    batches = some_batches()
    whole = trained(shared | {"train": DECAYING | {"optimizer": "sgd"}}, batches)
    rows = trained(shared | {"train": DECAYING | {"optimizer": "sgd", "tables": "sgd"}}, batches)
    np.testing.assert_allclose(rows[0], whole[0], rtol=0, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=2e-6), rows[1], whole[1])
    assert (np.asarray(rows[2].opt_state["tables"]["embedding"]["item_id"]["seen"]) < len(batches)).any()


def test_rows_that_no_batch_names_stay_and_padding_is_zero():
    batches = some_batches(2)
    named = np.unique(np.concatenate([np.append(batch["history"], batch["item"]) for batch in batches]))
    change = {"train": {"tables": "lazy_adam", "length_buckets": [2]}}
    _, after, state, config, mesh = trained(change, batches)
    before = init_state(config, put_items(table_of(), mesh, config), mesh).params["embedding"]["item_id"]
    moved = (np.asarray(before) != after["embedding"]["item_id"]).any(axis=1)
    assert set(np.flatnonzero(moved)) <= set(named) - {0} and moved.sum() > 0.8 * len(named)
    for name in config.features.table_sizes:
        assert not after["embedding"][name][0].any()


@pytest.mark.slow
def test_a_learning_rate_of_the_tables_own():
    batches = some_batches(1)
    change = {"train": {"learning_rate": 0.01, "tables": "sgd", "length_buckets": [2]}}
    _, once, *_ = trained(change, batches)
    change["train"]["tables"] = {"optimizer": "sgd", "learning_rate": 0.02}
    _, twice, _, config, mesh = trained(change, batches)
    start = init_state(config, put_items(table_of(), mesh, config), mesh).params
    for name in config.features.table_sizes:
        a, b, c = (np.asarray(tree["embedding"][name]) for tree in (start, once, twice))
        np.testing.assert_allclose(c - a, 2 * (b - a), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(once["head"]["layer_0"]["kernel"], twice["head"]["layer_0"]["kernel"])


# What a step costs, and where tables are


LARGE = 400_000


def large(**train):
    return {"features": features_of_many(LARGE), "train": {"length_buckets": [], "ema": 0.9} | train}


def large_batch(seed):
    return batch_of_many(LARGE, 10, seed)


@pytest.fixture(scope="module")
def large_items():
    return table_of_many(LARGE)


def compiled(change, items, devices):
    config, mesh = resolved_config(merged(QUICK, change)), make_mesh(jax.devices()[:devices])
    on_device = put_items(items, mesh, config)
    state = init_state(config, on_device, mesh)
    arguments = state, put_batch(large_batch(0), mesh), on_device, np.float32(0.1)
    return make_train_step(config, mesh).lower(*arguments).compile(), state


def test_a_step_makes_nothing_of_a_tables_size(large_items, optimised):
    """Neither a gradient nor a copy: not even of one number for each row."""
    rows, _ = compiled(large(tables="adam", weight_decay={"tables": 0.5}), large_items, 1)
    assert rows.memory_analysis().temp_size_in_bytes < LARGE * 4 / 2


def test_rows_are_caught_up_with_in_the_memory_of_few_of_them(large_items, optimised):
    change = merged(QUICK, large(tables="adam", weight_decay={"tables": 0.5}))
    config, mesh = resolved_config(change), make_mesh(jax.devices()[:1])
    state = init_state(config, put_items(large_items, mesh, config), mesh)
    program = jax.jit(RowTables(config, mesh).caught_up).lower(state).compile()
    shares = 132 * 4  # bytes of a row's momentum, step by step
    assert program.memory_analysis().temp_size_in_bytes < LARGE * shares / 2


@pytest.mark.slow
def test_split_tables_are_stepped_where_their_rows_are(large_items, optimised):
    """The same losses and weights as on one device; an eighth of the state on each, and rows alone are exchanged."""
    batches = [large_batch(seed) for seed in range(4)]
    change = large(tables="adam", weight_decay={"tables": 0.5})
    whole = trained(change, batches, items=large_items)
    split = trained(large(tables="adam", weight_decay={"tables": 0.5}, sharding="fsdp"), batches, 8, large_items)
    np.testing.assert_allclose(split[0], whole[0], rtol=1e-5)
    ids = split[1]["embedding"]["item_id"][:LARGE], whole[1]["embedding"]["item_id"]
    np.testing.assert_allclose(*ids, rtol=0, atol=1e-5)

    state = split[2]
    of_ids = state.opt_state["tables"]["embedding"]["item_id"]
    arrays = [state.params["embedding"]["item_id"], state.averaged["embedding"]["item_id"], *of_ids.values()]
    assert len(arrays) == 5
    for x in arrays:
        assert [len(part.data) for part in x.addressable_shards] == [len(x) // 8] * 8

    program, _ = compiled(large(tables="adam", weight_decay={"tables": 0.5}, sharding="fsdp"), large_items, 8)
    rows = 16 * 11 + 1  # looked up in a step, and padding's
    vectors_and_gradients = 2 * rows * 4 + 2 * rows * DIM  # of ids; and the frozen vectors
    weights = sum(x.size for x in jax.tree.leaves(RowTables(split[3], split[4]).without(state).params))
    exchanged = sum(n for _, n in collectives(program.as_text()))
    assert rows * 4 < exchanged < vectors_and_gradients + weights + 20 * rows


# A whole training


BY_ROWS = {"tables": "adam", "weight_decay": {"tables": 0.5}, "ema": 0.9, "batch_size": 16, "epochs": 2}


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(dataset, tmp_path, monkeypatch):
    """To the last bit, though rows lag behind in every checkpoint; and predict finds them caught up with."""
    config = config_for(dataset, train=BY_ROWS, **QUICK)
    summary = train(config, tmp_path / "whole")
    for i, step in enumerate((3, 21)):
        monkeypatch.setattr(training, "Interrupt", lambda step=step: StopAt(step))
        train(config, tmp_path / "run", resume=i > 0)
    monkeypatch.undo()
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.validation == summary.validation
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert Predictor.load(tmp_path / "run").step == summary.best_step


@pytest.mark.slow
def test_another_training_begins_with_rows_caught_up_with(dataset, tmp_path):
    """Its steps count from 0 again, and so do those that rows have seen."""
    config = config_for(dataset, train=BY_ROWS, **QUICK)
    train(config, tmp_path / "before")
    run, mesh = RunDirectory(tmp_path / "before"), make_mesh()
    config, items = run.read_config(), put_items(run.read_items(), mesh, run.read_config())
    warm = warm_started(init_state(config, items, mesh), restored(run, mesh), run)
    _, best, _ = restore_best(tmp_path / "before", config, items, mesh)
    near = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)
    jax.tree.map(near, jax.device_get(make_predicting(config, mesh)(warm)), jax.device_get(best))
    for kept in warm.opt_state["tables"]["embedding"].values():
        assert not np.asarray(kept["seen"]).any() and np.asarray(kept["mu"]).any()
    again = train(config, tmp_path / "after", init_from=tmp_path / "before")
    assert math.isfinite(again.validation["logloss"])


@pytest.mark.parametrize("arguments", [{"b1": 0.9995}, {"b1": 0.9, "b2": 0.5}, {"b2": 0.0}])
def test_momentum_that_never_ends_is_refused(dataset, arguments):
    with pytest.raises(InputError, match=r"train\.tables.* lower b1"):
        config_for(dataset, train={"tables": {"optimizer": "adam", **arguments}})


def test_a_penalty_on_every_row_is_refused(dataset):
    with pytest.raises(InputError, match=r"train\.embedding_l2 .* use train\.weight_decay\.tables"):
        config_for(dataset, train={"tables": "lazy_adam", "embedding_l2": 1e-4})
