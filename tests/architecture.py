"""A model and its features without files: what a config has besides data and training."""

import json

from mmctr_jax.config.schema import AnyModelSettings
from mmctr_jax.features import Features
from mmctr_jax.models import MODELS
from mmctr_jax.settings import Settings


class Architecture(Settings):
    features: Features = Features()
    model: AnyModelSettings = MODELS["mmctr"]()


def architecture(raw: dict) -> Architecture:
    """From plain settings, as a config file has them; checked as there."""
    checked = Architecture.model_validate_json(json.dumps(raw))
    checked.model.check(checked.features)
    return checked
