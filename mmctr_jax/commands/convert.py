"""mmctr convert torch-to-jax CHECKPOINT --config CONFIG [section.key=value ...] --out RUN_DIR
mmctr convert jax-to-torch RUN_DIR --out CHECKPOINT

CHECKPOINT is the release's state dict, as torch.save writes it; RUN_DIR is what `mmctr predict` reads.
"""

import argparse

from mmctr_jax import interrupt
from mmctr_jax.files import expanded
from mmctr_jax.remote import place_here


def main(arguments: list[str]) -> int:
    """Runs `mmctr convert`; returns the exit code. Raises: InputError."""
    parser = argparse.ArgumentParser(prog="mmctr convert", description="Released PyTorch weights in and out.")
    commands = parser.add_subparsers(dest="command", required=True)
    into = commands.add_parser("torch-to-jax", help="a released state dict into a run directory")
    into.add_argument("checkpoint", type=expanded, help="file with the state dict")
    into.add_argument(
        "overrides", nargs="*", default=[], metavar="section.key=value", help="settings that replace the config's"
    )
    into.add_argument("--config", required=True, help="YAML file that describes the checkpoint's model and its items")
    into.add_argument("--out", required=True, type=place_here, help="new run directory, for mmctr predict")
    back = commands.add_parser("jax-to-torch", help="a run directory's weights into a released state dict")
    back.add_argument("run_dir", type=expanded, help="what mmctr train or torch-to-jax wrote")
    back.add_argument("--out", required=True, type=place_here, help="file for the state dict")
    args, rest = parser.parse_known_args(arguments)
    with interrupt.deferred():
        from mmctr_jax.config import load_config
        from mmctr_jax.console import log
        from mmctr_jax.interop.convert import jax_to_torch, torch_to_jax

    if args.command == "torch-to-jax":
        overrides = args.overrides + rest
        wrong = next((text for text in overrides if "=" not in text or text.startswith("-")), None)
        if wrong:
            parser.error(f"unrecognized argument: {wrong}")
        weights = torch_to_jax(args.checkpoint, load_config(args.config, overrides), args.out)
        log.info(f"{weights:,} weights are in {args.out}; score with: mmctr predict --ckpt {args.out}")
    else:
        if rest:
            parser.error(f"unrecognized argument: {rest[0]}")
        weights = jax_to_torch(args.run_dir, args.out)
        log.info(f"{weights:,} weights are in {args.out}.")
    return 0
