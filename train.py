"""Trains a model: python train.py --config configs/NAME.yaml; the same as `mmctr train`."""

from mmctr_jax.cli import run

if __name__ == "__main__":
    run("train")
