"""mmctr compare CONFIG [CONFIG ...] [section.key=value ...] [--seeds 3] --out DIR"""

import argparse
from pathlib import Path

from mmctr_jax import interrupt
from mmctr_jax.remote import place_here


def main(arguments: list[str]) -> int:
    """Runs `mmctr compare`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="mmctr compare", description="Train and score several configs over several seeds."
    )
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG | section.key=value",
        help="YAML files, whose names are the table's rows; and settings for all of them",
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 … N (default: 3)")
    parser.add_argument("--out", type=place_here, required=True, help="folder of the runs and tables")
    args = parser.parse_intermixed_args(arguments)
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    overrides = [text for text in args.configs if "=" in text and not Path(text).is_file()]
    paths = [Path(text) for text in args.configs if text not in overrides]
    if not paths:
        parser.error("no config is named")

    with interrupt.deferred():
        from mmctr_jax.console import log
        from mmctr_jax.devices.compilation import keep_compiled_programs
        from mmctr_jax.experiments.comparison import compare

    keep_compiled_programs()
    try:
        finished = compare(paths, overrides, list(range(1, args.seeds + 1)), args.out)
    except KeyboardInterrupt:  # outside of a training, which saves
        finished = False
    if not finished:
        log.info("Interrupted. To continue, run the same command again.")
        return interrupt.EXIT_CODE
    print((args.out / "table.md").read_text(), end="")
    log.info(f"table.md, table.csv, table.png and runs.csv are in {args.out}.")
    return 0
