"""Multimodal click-through-rate prediction in JAX.

The model is the winning system of the WWW 2025 EReL@MIR Multimodal CTR Prediction Challenge (arXiv 2505.03543);
equation numbers in comments are the paper's.

Shape letters, used in names throughout (`history_BxN`):

    B  rows of a batch            V  items, the padding item 0 included
    N  history length             G  tags, the padding tag 0 included
    K  first_k, last outputs kept L  tags per item
    D  item width                 S  side features
    T  Transformer width, 2·D     H  attention heads
    F  width of the feature vector that the cross network sees

Data flows one way, and no package imports one above it: docs/architecture.md.

From Python (docs/python.md): `load_config`, `train`, `predict`, `report`, `Predictor`, `Scorer`, `InputError`.
"""

import importlib
from typing import Any

__version__ = "0.2.0"
_PUBLIC = {
    "load_config": "mmctr_jax.config",
    "train": "mmctr_jax.training.loop",
    "Predictor": "mmctr_jax.prediction.predictor",
    "Scorer": "mmctr_jax.serve",
    "predict": "mmctr_jax.prediction.predict",
    "report": "mmctr_jax.pages.report.page",
    "InputError": "mmctr_jax.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """What is public, loaded when it is asked for: `import mmctr_jax` alone loads no library."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mmctr_jax.console import root_logger_kept

    with root_logger_kept():
        return getattr(importlib.import_module(_PUBLIC[name]), name)
