"""One training step and one scoring step, jitted over the mesh."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from mmctr_jax.config import Config
from mmctr_jax.data.loader import empty_batch
from mmctr_jax.devices.sharding import filled, placed, replicated
from mmctr_jax.features import Features
from mmctr_jax.models import Model, build_model, live
from mmctr_jax.optimization.norms import clipped, squares_by_group
from mmctr_jax.optimization.rows import average_share
from mmctr_jax.optimization.weight_decay import group_of
from mmctr_jax.runs.state import TrainState
from mmctr_jax.training.tables import RowTables

_COMPUTE_DTYPE = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}
# "highest" keeps float32 products float32 on GPUs too, whose default is TF32.
_MATMUL = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}


def summed_bce(logits_B: jax.Array, label_B: jax.Array, weight_B: jax.Array) -> jax.Array:
    """Weighted sum of binary cross-entropies (Eq. 10), from the logits; rows of weight 0 do not count, whatever they
    hold."""
    weight_B = weight_B.astype(logits_B.dtype)
    logits_B = jnp.where(weight_B > 0, logits_B, 0)  # before the loss: a NaN behind it would still reach the gradient
    losses_B = optax.sigmoid_binary_cross_entropy(logits_B, label_B.astype(logits_B.dtype))
    return (weight_B * losses_B).sum()


def loss_of_all_labels(logits: jax.Array, batch: dict[str, Any], features: Features) -> jax.Array:
    """`summed_bce` of each label, by what it counts. logits: (B,), or (B, 1 + L) with L labels besides the first."""
    label, weights = features.label, features.labels
    first, *others = [logits] if logits.ndim == 1 else logits.T
    total = weights.get(label, 1.0) * summed_bce(first, batch["label"], batch["weight"])
    for name, logits_B in zip(features.other_labels, others, strict=True):
        total += weights[name] * summed_bce(logits_B, batch["labels"][name], batch["weight"])
    return total


def l2_penalty(params: Any, embedding_l2: float, net_l2: float) -> jax.Array:
    """λ/2·‖w‖²: `embedding_l2` on the embedding tables, `net_l2` on all other weight matrices; biases are free."""
    penalty, rates = jnp.zeros(()), {"tables": embedding_l2, "matrices": net_l2, None: 0.0}
    for path, w in jax.tree_util.tree_leaves_with_path(params):
        rate = rates[group_of(path, w)]
        if rate:
            penalty += rate / 2 * jnp.square(w).sum()
    return penalty


def moving_average(averaged: Any, params: Any, steps: jax.Array, decay: float) -> Any:
    """The average of the weights after the steps up to `steps`, those of n steps ago weighing decayⁿ (Adam's mean).

    averaged: the same up to the step before; of no consequence at the first. steps: () int32, from 1.
    """
    share = average_share(steps, decay)
    return jax.tree.map(lambda a, p: a + share.astype(p.dtype) * (p - a), averaged, params)


def model_of(config: Config) -> Model:
    """The model of a resolved config, in the precision that it computes in."""
    return build_model(config.model, config.features, _COMPUTE_DTYPE[config.train.precision])


def narrowed(config: Config, length: int) -> Config:
    """The config with the model that is enough for histories of at most `length` clicks, see `models.live`."""
    return config.model_copy(update={"model": config.model.narrowed(length)})


def _variables(config: Config, items: dict[str, jax.Array], rng: jax.Array) -> Any:
    """Fresh parameters, as they are kept, and running means."""
    batch = empty_batch(config.features, 1, config.model.max_history)
    variables = model_of(config).init(rng, batch, items, train=False)
    return variables | {"params": filled(variables["params"], config.train.sharding)}


def _init(config: Config, mesh: Mesh, items: dict[str, jax.Array], key: jax.Array) -> TrainState:
    init_rng, rng = jax.random.split(key)
    variables = _variables(config, items, init_rng)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    init = config.train.optimizer.init
    opt_state = RowTables(config, mesh).init(params, init) if config.train.tables else init(params)
    averaged = None if config.train.ema is None else jax.tree.map(jnp.copy, params)
    return TrainState(params, batch_stats, opt_state, jnp.zeros((), jnp.int32), rng, averaged)


def init_state(config: Config, items: dict[str, jax.Array], mesh: Mesh) -> TrainState:
    """A fresh state from the config's seed, the same whatever the number of devices."""
    places = jax.tree.map(lambda x: x.sharding, abstract_state(config, items, mesh))
    with jax.ensure_compile_time_eval():
        key = np.asarray(jax.random.PRNGKey(config.train.seed))
    # The seed is no part of the program, which is therefore compiled once for all seeds.
    return jax.jit(partial(_init, config, mesh), out_shardings=places)(items, key)


def abstract_state(config: Config, items: dict[str, jax.Array], mesh: Mesh) -> TrainState:
    """The state's shapes, and where each array lives (`sharding.placed`)."""

    def place(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed(x.shape, mesh, config.train.sharding))

    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    return jax.tree.map(place, jax.eval_shape(partial(_init, config, mesh), items, key))


def parameter_shapes(config: Config, items: dict[str, jax.Array]) -> Any:
    """The parameters' tree as it is kept, of shapes alone."""
    return jax.eval_shape(lambda items: _variables(config, items, jax.random.PRNGKey(0))["params"], items)


def make_train_step(config: Config, mesh: Mesh) -> Callable:
    """`(state, batch, items, learning_rate) → (state, metrics)`; the state is donated.

    Compiled once for each length of histories. metrics: `loss`, the batch's weighted mean over its rows; `grad_norm`
    before clipping, both () float32; and `group_norms` (G,), the same of each group (`optimization.norms.group_names`).
    """
    train, leading = config.train, live.leading_columns(config.features, config.model)
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    cut_live, add_live = (live.cut, live.add) if on_cpu else (live.cut_at_once, live.add_at_once)
    tables = RowTables(config, mesh) if train.tables else None

    def in_place(tree):
        places = jax.tree.map(lambda x: placed(x.shape, mesh, train.sharding), tree)
        return jax.lax.with_sharding_constraint(tree, places)

    def whole(x):
        return jax.lax.with_sharding_constraint(x, replicated(mesh))

    def cut(x, like):
        """Of a matrix that is split, the whole is fetched and cut: slices of its parts would travel in pieces."""
        return x if x.shape == like.shape else cut_live(whole(x), like.shape, leading)

    def widen(grad, x):
        """Each device takes its part of a gradient that is on all."""
        return grad if grad.shape == x.shape else in_place(whole(add_live(jnp.zeros_like(x), grad, leading)))

    def train_step(state: TrainState, batch, items, learning_rate):
        # With L2, λ·w is a gradient of every weight, whatever the histories.
        small = config if train.net_l2 else narrowed(config, batch["history"].shape[1])
        model, params = model_of(small), state.params
        # Kept in one piece, so that a GPU makes the keys of all dropout layers of it in one kernel.
        key = jax.lax.optimization_barrier(jax.random.fold_in(state.rng, state.step))
        if small != config:
            params = jax.tree.map(cut, params, parameter_shapes(small, items))
        given = {"batch_stats": state.batch_stats}
        if tables:
            named = tables.named(model, given | {"params": params}, batch, items, key)
            params = tables.with_rows(params, tables.read(state, named))
            given["rows"] = {"embedding": named}

        def objective(params):
            logits, updates = model.apply(
                given | {"params": params},
                batch,
                items,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats", "losses"],
            )
            total = loss_of_all_labels(logits.astype(jnp.float32), batch, config.features)
            own = sum(
                jax.tree.leaves(updates.get("losses", {})), jnp.zeros(())
            )  # means, which the model has of its own
            return total + batch["weight"].sum() * own, (total, updates.get("batch_stats", {}))

        with jax.default_matmul_precision(_MATMUL[train.precision]):
            (_, (total, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(params)
        # Made a mean here and not in the objective: so the devices exchange weight, loss and gradients all at once.
        weight = batch["weight"].sum()
        loss, grads = total / weight, jax.tree.map(lambda g: g / weight, grads)
        if train.embedding_l2 or train.net_l2:
            penalties = jax.grad(l2_penalty)(params, train.embedding_l2, train.net_l2)
            grads = jax.tree.map(jnp.add, grads, penalties)
        norms = jnp.sqrt(squares_by_group(grads))
        grads, norm = clipped(grads, train.clip_norm)
        rest, of_rest = (tables.without(state), tables.apart(grads)[1]) if tables else (state, grads)
        add = partial(add_live, leading=leading)
        if train.sharding == "fsdp":
            of_rest, add = jax.tree.map(widen, of_rest, rest.params), jnp.add
        with jax.named_scope("optimizer"):
            params, opt_state = train.optimizer.update(
                of_rest, rest.opt_state, rest.params, learning_rate, add, train.decay_rate
            )
        step, averaged = state.step + 1, rest.averaged
        if averaged is not None:
            averaged = moving_average(averaged, params, step, train.ema)
        rest = TrainState(params, batch_stats, opt_state, step, state.rng, averaged)
        if tables:
            with jax.named_scope("tables"):
                rest = tables.step(state, named, tables.apart(grads)[0], learning_rate, rest)
        return in_place(rest), whole({"loss": loss, "grad_norm": norm, "group_norms": norms})

    return jax.jit(train_step, donate_argnums=0)


def make_predicting(config: Config, mesh: Mesh) -> Callable:
    """`state → params`: the weights that are validated, and that score: averaged ones if there are any."""
    tables = RowTables(config, mesh) if config.train.tables else None

    def weights(state: TrainState) -> Any:
        return state.params if state.averaged is None else state.averaged

    @jax.jit
    def caught_up(state: TrainState) -> Any:
        places = jax.tree.map(lambda x: placed(x.shape, mesh, config.train.sharding), state.params)
        return jax.lax.with_sharding_constraint(weights(tables.caught_up(state)), places)

    return lambda state: caught_up(state) if state.rows_lag else weights(state)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree of arrays is finite; () bool."""
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def make_narrow(config: Config, mesh: Mesh) -> Callable:
    """`(params, items, length) → params`: what predicting histories of at most `length` clicks needs of them."""

    leading = live.leading_columns(config.features, config.model)

    def cut_in_place(x, shape):
        small = live.cut(x, shape, leading)
        return jax.lax.with_sharding_constraint(small, placed(shape, mesh, config.train.sharding))

    cut = jax.jit(cut_in_place, static_argnums=1)
    shapes: dict[int, Any] = {}  # by length: finding them takes a trace of the model

    def narrow(params, items, length):
        small = narrowed(config, length)
        if small == config:
            return params
        if length not in shapes:
            shapes[length] = parameter_shapes(small, items)
        # Leaf by leaf, so that what is not cut, such as the embedding tables, is not copied.
        return jax.tree.map(lambda x, like: x if x.shape == like.shape else cut(x, like.shape), params, shapes[length])

    return narrow


def make_vectors_step(config: Config) -> Callable:
    """`(params, batch_stats, batch, items) → {"item": (B, W), …}`: the vectors that a model sows (`Model.embedded`)."""

    def vectors_step(params, batch_stats, batch, items):
        with jax.default_matmul_precision(_MATMUL[config.train.precision]):
            variables = {"params": params, "batch_stats": batch_stats}
            _, sown = model_of(config).apply(variables, batch, items, train=False, mutable=["vectors"])
        return {name: found[-1].astype(jnp.float32) for name, found in sown["vectors"].items()}

    return jax.jit(vectors_step)


def make_predict_step(config: Config, mesh: Mesh) -> Callable:
    """`(params, batch_stats, batch, items) → logits (B,) float32`, whole on every device; (B, 1 + L) with more labels.

    Compiled once for each length of histories; `params` are narrowed to it (`make_narrow`).
    """

    def predict_step(params, batch_stats, batch, items):
        model = model_of(narrowed(config, batch["history"].shape[1]))
        with jax.default_matmul_precision(_MATMUL[config.train.precision]):
            variables = {"params": params, "batch_stats": batch_stats}
            return model.apply(variables, batch, items, train=False).astype(jnp.float32)

    return jax.jit(predict_step, out_shardings=replicated(mesh))
