"""python -m mmctr_jax.report RUN_DIR [RUN_DIR ...] --out PAGE.html"""

import argparse
from pathlib import Path

from mmctr_jax import cli


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mmctr_jax.report",
        description="What a training came to, as one page: curves, metrics with intervals, calibration, AUC by slices. "
        "Several runs: side by side, with differences. Works while a run is still going.",
    )
    parser.add_argument("run_dirs", type=Path, nargs="+", metavar="RUN_DIR", help="what train.py wrote")
    parser.add_argument("--out", required=True, type=Path, metavar="PAGE.html", help="the page to write")
    args = parser.parse_args()

    from mmctr_jax.report.write import report  # not above: --help need not wait for the libraries

    cli.keep_compiled_programs()
    report(args.run_dirs, args.out)
    return 0


if __name__ == "__main__":
    cli.run_main(main)
