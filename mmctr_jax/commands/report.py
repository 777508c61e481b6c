"""mmctr report RUN_DIR [RUN_DIR ...] --out PAGE.html"""

import argparse

from mmctr_jax.devices.compilation import keep_compiled_programs
from mmctr_jax.files import expanded
from mmctr_jax.remote import place_here


def main(arguments: list[str]) -> int:
    """Runs the subcommand; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="mmctr report",
        description="What trainings achieved, as one page: curves, metrics with intervals, calibration, AUC by slices. "
        "Several runs: side by side, with differences. Works while a run is still going.",
    )
    parser.add_argument("run_dirs", type=expanded, nargs="+", metavar="RUN_DIR", help="what train.py wrote")
    parser.add_argument("--out", required=True, type=place_here, metavar="PAGE.html", help="the page to write")
    args = parser.parse_args(arguments)

    from mmctr_jax.pages.report.page import report  # not above: --help need not wait for the libraries

    keep_compiled_programs()
    report(args.run_dirs, args.out)
    return 0
