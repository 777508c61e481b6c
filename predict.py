"""Scores rows: python predict.py --ckpt RUN_DIR; the same as `mmctr predict`."""

from mmctr_jax.cli import run

if __name__ == "__main__":
    run("predict")
