"""Settings: what they are, how files and overrides become them, and how errors are explained."""

from mmctr_jax.config.reading import load_config, parse_config, read_settings, set_field, to_yaml
from mmctr_jax.config.schema import Config, DataConfig, TrainConfig

__all__ = [
    "Config",
    "DataConfig",
    "TrainConfig",
    "load_config",
    "parse_config",
    "read_settings",
    "set_field",
    "to_yaml",
]
