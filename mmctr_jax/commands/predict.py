"""mmctr predict --ckpt RUN_DIR [--data FILE|FOLDER] [--out FILE] ..."""

import argparse

from mmctr_jax import interrupt
from mmctr_jax.devices.compilation import keep_compiled_programs
from mmctr_jax.files import expanded


def main(arguments: list[str]) -> int:
    """Runs `mmctr predict`; returns the exit code. Raises: InputError."""
    with interrupt.deferred():
        from mmctr_jax.console import log, show
        from mmctr_jax.prediction.output import TASKS
        from mmctr_jax.prediction.predict import predict

    parser = argparse.ArgumentParser(prog="mmctr predict", description="Score samples with a trained model.")
    parser.add_argument("--ckpt", required=True, type=expanded, metavar="RUN_DIR", help="what mmctr train wrote")
    parser.add_argument("--data", help="Parquet file or folder (default: the config's test file)")
    parser.add_argument("--out", type=expanded, help=".parquet, .csv or .zip (default: RUN_DIR/predictions.parquet)")
    parser.add_argument("--task", choices=TASKS, help="score column of a .zip submission")
    parser.add_argument("--labels", help="labels in a file of their own, in the same row order (default: the config's)")
    parser.add_argument(
        "--item-info", help="a newer item table than training's; its new items are scored by their features"
    )
    parser.add_argument(
        "--calibrate",
        choices=("platt", "isotonic", "none"),
        help="fit on the validation rows, keep it beside the checkpoint and use it from now on; none: not this time",
    )
    parser.add_argument("--valid", help="validation rows for --calibrate (default: the config's)")
    original = "users and items as the log named them, by the vocabularies of the prepared folder"
    parser.add_argument("--original-ids", action="store_true", help=original)
    args = parser.parse_args(arguments)

    keep_compiled_programs()

    chosen = args.ckpt, args.data, args.out, args.task, args.labels, args.item_info, args.calibrate
    result = predict(*chosen, args.original_ids, args.valid)
    log.info(
        f"Scored {result['rows']:,} rows in {result['seconds']:.1f} s "
        f"({result['rows'] / result['seconds']:,.0f} samples/s); predictions are in {result['out']}."
    )
    if result["metrics"]:
        log.info(", ".join(f"{name} {show(value)}" for name, value in result["metrics"].items()))
    if "uncalibrated" in result:
        before = ", ".join(f"{name} {show(value)}" for name, value in result["uncalibrated"].items())
        log.info(f"Not calibrated: {before}.")
    return 0
