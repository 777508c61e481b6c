"""python -m mmctr_jax.inspect DIR [--config CONFIG] [--out FOLDER]"""

import argparse
from pathlib import Path

from mmctr_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mmctr_jax.inspect",
        description="Know your data before spending hours on it: writes inspect.html and inspect.json.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="train, valid, item_info .parquet, and test if any")
    parser.add_argument(
        "--config", type=Path, help="whose columns to look at (default: the one that prepare wrote, if any)"
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where the two files go (default: DIR)")
    args = parser.parse_args()

    from mmctr_jax.inspect.write import inspect  # not above: --help need not wait for the libraries

    inspect(args.folder, args.config, args.out or args.folder)
    return 0


if __name__ == "__main__":
    cli.run_main(main)
