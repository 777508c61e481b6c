"""Trains a model: python train.py --config configs/NAME.yaml [section.key=value ...] [--resume] [--run-dir DIR]"""

import argparse
from pathlib import Path

from mmctr_jax import cli, interrupt


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a multimodal CTR model.")
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    parser.add_argument("--run-dir", type=Path, help="where everything goes (default: runs/NAME of configs/NAME.yaml)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run; start if there is none")
    parser.add_argument("--deterministic", action="store_true", help="same bits every time on GPUs, too; slower there")
    cli.add_host_arguments(parser)
    args = parser.parse_intermixed_args()

    with interrupt.deferred():
        from mmctr_jax.config import load_config
        from mmctr_jax.console import clock, log, show

    config = load_config(args.config, args.overrides)
    directory = args.run_dir or Path("runs") / Path(args.config).stem
    if args.deterministic:
        cli.make_deterministic()
    cli.keep_compiled_programs()
    cli.join_hosts(args)

    with interrupt.deferred():
        from mmctr_jax.training import train  # after join_hosts: JAX must not be in use before

    summary = train(config, directory, args.resume)
    if summary["stopped"] == "interrupted":
        log.info(f"Saved at step {summary['steps']:,}. To go on: the same command with --resume.")
        return interrupt.EXIT_CODE
    scores = ", ".join(f"{name} {show(value)}" for name, value in summary["validation"].items())
    log.info(
        f"Done after {summary['epochs']:.2f} epochs in {clock(summary['seconds'])} ({summary['stopped']}). "
        f"Best at step {summary['best_step']}: validation {scores}. Everything is in {directory}."
    )
    return 0


if __name__ == "__main__":
    cli.run_main(main)
