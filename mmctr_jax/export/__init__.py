"""Export: a trained model as a folder that is served without JAX (`mmctr_jax.serve`) or without this package at all."""
