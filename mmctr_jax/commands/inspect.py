"""mmctr inspect DIR [--config CONFIG] [--out FOLDER]"""

import argparse

from mmctr_jax.files import expanded
from mmctr_jax.remote import place_here


def main(arguments: list[str]) -> int:
    """Runs the subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mmctr inspect",
        description="Know your data before spending hours on it: writes inspect.html and inspect.json.",
    )
    parser.add_argument(
        "folder", type=expanded, metavar="DIR", help="train, valid, item_info .parquet, and test if any"
    )
    parser.add_argument(
        "--config", type=expanded, help="whose columns to look at (default: the one that prepare wrote, if any)"
    )
    parser.add_argument("--out", type=place_here, metavar="FOLDER", help="where the two files go (default: DIR)")
    args = parser.parse_args(arguments)

    from mmctr_jax.pages.inspect.page import inspect  # not above: --help need not wait for the libraries

    inspect(args.folder, args.config, args.out or args.folder)
    return 0
