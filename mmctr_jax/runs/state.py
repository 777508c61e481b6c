"""What a training changes on the device from step to step, and a checkpoint keeps."""

from typing import Any

import jax
from flax import struct


@struct.dataclass
class TrainState:
    """All that changes from step to step on the device."""

    params: Any
    batch_stats: Any  # running means of batch norm; empty without it
    opt_state: Any
    step: jax.Array  # () int32: steps done
    rng: jax.Array  # the run's key; step n draws from fold_in(rng, n), so a resumed step draws what it would have
