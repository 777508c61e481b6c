"""Pure models: arrays in, logits out. One file for each model, with its settings, and one line here."""

from __future__ import annotations

import jax.numpy as jnp

from mmctr_jax.features import Features
from mmctr_jax.models.base import Model, ModelSettings
from mmctr_jax.models.din import DINSettings
from mmctr_jax.models.embedding import ItemVectors
from mmctr_jax.models.matching import MatchingSettings
from mmctr_jax.models.mmctr import MMCTRSettings
from mmctr_jax.models.without_dcn import WithoutDCNSettings
from mmctr_jax.models.without_transformer import WithoutTransformerSettings

__all__ = ["MODELS", "ItemVectors", "Model", "ModelSettings", "build_model"]

MODELS: dict[str, type[ModelSettings]] = {
    "mmctr": MMCTRSettings,
    "without_transformer": WithoutTransformerSettings,
    "without_dcn": WithoutDCNSettings,
    "din": DINSettings,
    "matching": MatchingSettings,
}


def build_model(settings: ModelSettings, features: Features, dtype: jnp.dtype = jnp.float32) -> Model:
    """The model of these settings. features: resolved. dtype: of the computation."""
    return settings.module(features, settings, dtype)
