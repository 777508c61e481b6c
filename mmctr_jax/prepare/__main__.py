"""python -m mmctr_jax.prepare movielens SOURCE --out DIR"""

import argparse
from pathlib import Path

from mmctr_jax import cli
from mmctr_jax.console import log
from mmctr_jax.prepare import movielens


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mmctr_jax.prepare", description="Prepare a published data set.")
    parser.add_argument("kind", choices=["movielens"])
    parser.add_argument("source", type=Path, help="folder with the data set's files")
    parser.add_argument("--out", required=True, type=Path, help="new folder for the prepared files")
    args = parser.parse_args()
    movielens.prepare(args.source, args.out)
    log.info(f"Prepared files are in {args.out}.")
    return 0


if __name__ == "__main__":
    cli.run_main(main)
