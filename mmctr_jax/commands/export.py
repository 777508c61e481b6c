"""mmctr export RUN_DIR --out DIR [--format onnx | stablehlo] [--precision float32 | int8] ..."""

import argparse

from mmctr_jax import interrupt
from mmctr_jax.files import expanded
from mmctr_jax.remote import place_here


def main(arguments: list[str]) -> int:
    """Runs `mmctr export`; returns the exit code. Raises: InputError."""
    parser = argparse.ArgumentParser(prog="mmctr export", description="A trained model as a folder to serve from.")
    parser.add_argument("run_dir", type=expanded, metavar="RUN_DIR", help="what mmctr train wrote")
    parser.add_argument(
        "--out", required=True, type=place_here, help="folder of the export; an older export is replaced"
    )
    parser.add_argument(
        "--format", choices=("onnx", "stablehlo"), default="onnx", help="stablehlo: for services in JAX (default: onnx)"
    )
    parser.add_argument(
        "--precision", choices=("float32", "int8"), default="float32", help="of the matrices (default: float32)"
    )
    parser.add_argument("--item-info", help="a newer item table than training's; its new items can be scored, too")
    parser.add_argument(
        "--original-ids", action="store_true", help="requests name items as the log did, by the vocabulary of prepare"
    )
    parser.add_argument(
        "--triton", metavar="NAME", help="make it a Triton model repository; NAME-LENGTH are its models"
    )
    args = parser.parse_args(arguments)

    with interrupt.deferred():
        from mmctr_jax.console import log
        from mmctr_jax.export.folder import export

    manifest = export(
        args.run_dir, args.out, args.format, args.precision, args.item_info, args.original_ids, args.triton
    )
    size = sum(file.stat().st_size for file in args.out.rglob("*")) / 1e6
    log.info(f"{args.out} ({size:,.0f} MB) scores {manifest['num_items']:,} items with step {manifest['step']:,}.")
    if args.triton:
        log.info(f"Serve it with: tritonserver --model-repository {args.out}")
    elif args.format == "onnx":
        log.info(f"Serve it with: mmctr serve {args.out}")
    return 0
