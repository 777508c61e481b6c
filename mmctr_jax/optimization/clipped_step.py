"""A step of the optimiser: clipping to a global norm, then what `train.optimizer` does with the gradients."""

from typing import Any

import jax
import jax.numpy as jnp

from mmctr_jax.optimization.norms import squares_by_group
from mmctr_jax.optimization.optimizers import Adam, Add, Optimizer
from mmctr_jax.optimization.weight_decay import DecayRate, no_decay

_ADAM = Adam()


def init(params: Any, optimizer: Optimizer = _ADAM) -> Any:
    """The optimiser's state before the first step."""
    return optimizer.init(params)


def update(
    grads: Any,
    opt_state: Any,
    params: Any,
    learning_rate: jax.Array,
    clip_norm: float,
    add: Add = jnp.add,
    optimizer: Optimizer = _ADAM,
    decay_rate: DecayRate = no_decay,
) -> tuple[Any, Any, jax.Array]:
    """A step with clipped gradients; arguments as those of `Optimizer.update`.

    clip_norm: of all gradients together. Returns: new parameters, new state, and the norm before clipping.
    """
    grads, norm = clipped(grads, clip_norm)
    with jax.named_scope("optimizer"):
        params, opt_state = optimizer.update(grads, opt_state, params, learning_rate, add, decay_rate)
    return params, opt_state, norm


def clipped(grads: Any, clip_norm: float) -> tuple[Any, jax.Array]:
    """The gradients, scaled down to the norm `clip_norm` of all together; and their norm before."""
    with jax.named_scope("clipping"):
        norm = jnp.sqrt(squares_by_group(grads).sum())
        # The 1e-6 is that of torch's clip_grad_norm_, which the reference uses; optax's own clipping has none.
        scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
    with jax.named_scope("optimizer"):
        return jax.tree.map(lambda g: g * scale, grads), norm
