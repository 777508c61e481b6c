"""One training step and one scoring step, jitted over the mesh."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from mmctr_jax import optimizer
from mmctr_jax.config import Config
from mmctr_jax.sharding import replicated

# "highest" keeps float32 products float32 on GPUs too, whose default is TF32.
_MATMUL = {"float32": "highest", "bfloat16": "default"}


@struct.dataclass
class TrainState:
    """All that changes from step to step on the device."""

    params: Any
    batch_stats: Any  # running means of batch norm; empty without it
    opt_state: Any
    step: jax.Array  # () int32: steps done
    rng: jax.Array  # the run's key; step n draws from fold_in(rng, n), so a resumed step draws what it would have


def weighted_bce(logits_B: jax.Array, label_B: jax.Array, weight_B: jax.Array) -> jax.Array:
    """Mean binary cross-entropy (Eq. 10), from the logits; rows of weight 0 do not count, whatever they hold."""
    weight_B = weight_B.astype(logits_B.dtype)
    logits_B = jnp.where(weight_B > 0, logits_B, 0)  # before the loss: a NaN behind it would still reach the gradient
    losses_B = optax.sigmoid_binary_cross_entropy(logits_B, label_B.astype(logits_B.dtype))
    return (weight_B * losses_B).sum() / weight_B.sum()


def l2_penalty(params: Any, embedding_l2: float, net_l2: float) -> jax.Array:
    """λ/2·‖w‖²: `embedding_l2` on the embedding tables, `net_l2` on all other weight matrices; biases are free."""
    penalty = jnp.zeros(())
    for path, w in jax.tree_util.tree_leaves_with_path(params):
        if w.ndim == 2:
            is_kernel = path[-1].key == "kernel"
            rate = net_l2 if is_kernel else embedding_l2
            if rate:
                penalty += rate / 2 * jnp.square(w).sum()
    return penalty


def init_state(model: nn.Module, config: Config, items: dict[str, jax.Array], mesh: Mesh) -> TrainState:
    """A fresh state from the config's seed, the same on every device, whatever their number."""

    def init(items):
        init_rng, rng = jax.random.split(jax.random.PRNGKey(config.train.seed))
        batch = {
            "history": jnp.zeros((1, config.model.max_history), jnp.int32),
            "item": jnp.zeros((1,), jnp.int32),
            "side": jnp.zeros((1, len(config.features.side)), jnp.int32),
            "weight": jnp.ones((1,)),
        }
        variables = model.init(init_rng, batch, items, train=False)
        params, batch_stats = variables["params"], variables.get("batch_stats", {})
        return TrainState(params, batch_stats, optimizer.init(params), jnp.zeros((), jnp.int32), rng)

    return jax.jit(init, out_shardings=replicated(mesh))(items)


def make_train_step(model: nn.Module, config: Config, mesh: Mesh) -> Callable:
    """`(state, batch, items, learning_rate) → (state, metrics)`; the state is donated.

    metrics: `loss`, the batch's weighted mean over its rows, and `grad_norm` before clipping; float32 scalars.
    """
    train = config.train

    def train_step(state: TrainState, batch, items, learning_rate):
        def objective(params):
            logits_B, updates = model.apply(
                {"params": params, "batch_stats": state.batch_stats},
                batch,
                items,
                train=True,
                rngs={"dropout": jax.random.fold_in(state.rng, state.step)},
                mutable=["batch_stats"],
            )
            loss = weighted_bce(logits_B.astype(jnp.float32), batch["label"], batch["weight"])
            penalty = l2_penalty(params, train.embedding_l2, train.net_l2)
            return loss + penalty, (loss, updates.get("batch_stats", {}))

        with jax.default_matmul_precision(_MATMUL[train.precision]):
            grads, (loss, batch_stats) = jax.grad(objective, has_aux=True)(state.params)
        params, opt_state, norm = optimizer.update(grads, state.opt_state, state.params, learning_rate, train.clip_norm)
        state = TrainState(params, batch_stats, opt_state, state.step + 1, state.rng)
        return state, {"loss": loss, "grad_norm": norm}

    return jax.jit(train_step, donate_argnums=0, out_shardings=replicated(mesh))


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Whether every number of a tree of arrays is finite; () bool."""
    return jnp.all(jnp.stack([jnp.isfinite(x).all() for x in jax.tree.leaves(tree)]))


def make_predict_step(model: nn.Module, config: Config, mesh: Mesh) -> Callable:
    """`(params, batch_stats, batch, items) → logits (B,) float32`, whole on every device."""

    def predict_step(params, batch_stats, batch, items):
        with jax.default_matmul_precision(_MATMUL[config.train.precision]):
            variables = {"params": params, "batch_stats": batch_stats}
            return model.apply(variables, batch, items, train=False).astype(jnp.float32)

    return jax.jit(predict_step, out_shardings=replicated(mesh))
