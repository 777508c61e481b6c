"""`mmctr prepare` for spark-submit, which takes a Python file: see docs/scaling.md, "Beyond one machine"."""

from mmctr_jax.cli import run

if __name__ == "__main__":
    run("prepare")
