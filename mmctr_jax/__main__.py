"""python -m mmctr_jax COMMAND …: the same as `mmctr COMMAND …`."""

from mmctr_jax.cli import main

if __name__ == "__main__":
    main()
