"""One step of clipped Adam, as the published training does it, for tests and benchmarks that step a tree themselves."""

from typing import Any

import jax
import jax.numpy as jnp

from mmctr_jax.optimization.norms import clipped
from mmctr_jax.optimization.optimizers import Adam, Add

_ADAM = Adam()


def init(params: Any) -> Any:
    """The state before the first step."""
    return _ADAM.init(params)


def update(
    grads: Any, opt_state: Any, params: Any, learning_rate: jax.Array, clip_norm: float, add: Add = jnp.add
) -> tuple[Any, Any, jax.Array]:
    """New parameters, new state, and the norm of all gradients before it was clipped to `clip_norm`."""
    grads, norm = clipped(grads, clip_norm)
    return *_ADAM.update(grads, opt_state, params, learning_rate, add), norm
