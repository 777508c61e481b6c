"""Pure models: arrays in, logits out."""

import flax.linen as nn
import jax.numpy as jnp

from mmctr_jax.config.schema import Config
from mmctr_jax.models.din import DIN
from mmctr_jax.models.mmctr import MMCTR
from mmctr_jax.models.without_dcn import WithoutDCN
from mmctr_jax.models.without_transformer import WithoutTransformer

MODELS = {"mmctr": MMCTR, "without_transformer": WithoutTransformer, "without_dcn": WithoutDCN, "din": DIN}
_COMPUTE_DTYPE = {"float32": jnp.float32, "tf32": jnp.float32, "bfloat16": jnp.bfloat16}


def build_model(config: Config) -> nn.Module:
    """The model of a resolved config."""
    return MODELS[config.model.name](config, _COMPUTE_DTYPE[config.train.precision])
