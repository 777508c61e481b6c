"""Pure models: arrays in, logits out."""

import flax.linen as nn
import jax.numpy as jnp

from mmctr_jax.config import Config
from mmctr_jax.models.mmctr import MMCTR

_COMPUTE_DTYPE = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(config: Config) -> nn.Module:
    """The model of a resolved config."""
    return MMCTR(config, _COMPUTE_DTYPE[config.train.precision])
