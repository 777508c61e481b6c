"""Clipping to a global norm, then Adam (Kingma & Ba 2015; betas 0.9 and 0.999, eps 1e-8), as released."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

_B1, _B2, _EPS = 0.9, 0.999, 1e-8
_adam = optax.scale_by_adam(b1=_B1, b2=_B2, eps=_EPS)


def init(params: Any) -> optax.ScaleByAdamState:
    return _adam.init(params)


def update(
    grads: Any,
    opt_state: optax.ScaleByAdamState,
    params: Any,
    learning_rate: jax.Array,
    clip_norm: float,
    add: Callable[[jax.Array, jax.Array], jax.Array] = jnp.add,
) -> tuple[Any, optax.ScaleByAdamState, jax.Array]:
    """New parameters, new optimizer state, and the global gradient norm before clipping.

    Adam is dense: rows without a gradient keep moving on their momentum.

    add: how a gradient joins a moment; gradients may be of a narrowed model (`models.live.add`), zero elsewhere. Optax
    would need them whole, which at batch 128 costs as much as the rest of the step.
    """
    norm = optax.tree.norm(grads)
    # The 1e-6 is that of torch's clip_grad_norm_, which the reference uses; optax's own clipping has none.
    scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
    grads = jax.tree.map(lambda g: g * scale, grads)
    mu = jax.tree.map(lambda m, g: add(_B1 * m, (1 - _B1) * g), opt_state.mu, grads)
    nu = jax.tree.map(lambda v, g: add(_B2 * v, (1 - _B2) * jnp.square(g)), opt_state.nu, grads)
    count = optax.safe_increment(opt_state.count)

    def step(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        m_hat, v_hat = m / (1 - _B1 ** count.astype(p.dtype)), v / (1 - _B2 ** count.astype(p.dtype))
        return p - learning_rate.astype(p.dtype) * m_hat / (jnp.sqrt(v_hat) + _EPS)

    return jax.tree.map(step, params, mu, nu), optax.ScaleByAdamState(count, mu, nu), norm
