"""Serving what `mmctr export` wrote: from Python (`Scorer`) or over HTTP (`mmctr serve`). Neither loads JAX."""

from mmctr_jax.serve.scorer import RequestError, Scorer

__all__ = ["RequestError", "Scorer"]
