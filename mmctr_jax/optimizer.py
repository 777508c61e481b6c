"""Clipping to a global norm, then Adam (Kingma & Ba 2015; betas 0.9 and 0.999, eps 1e-8), as released."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

_adam = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


def init(params: Any) -> optax.OptState:
    return _adam.init(params)


def update(
    grads: Any, opt_state: optax.OptState, params: Any, learning_rate: jax.Array, clip_norm: float
) -> tuple[Any, optax.OptState, jax.Array]:
    """New parameters, new optimizer state, and the global gradient norm before clipping.

    Adam is dense: rows without a gradient keep moving on their momentum.
    """
    norm = optax.tree.norm(grads)
    # The 1e-6 is that of torch's clip_grad_norm_, which the reference uses; optax's own clipping has none.
    scale = jnp.minimum(1.0, clip_norm / (norm + 1e-6))
    grads = jax.tree.map(lambda g: g * scale, grads)
    steps, opt_state = _adam.update(grads, opt_state)
    params = jax.tree.map(lambda p, s: p - learning_rate.astype(p.dtype) * s, params, steps)
    return params, opt_state, norm
