"""mmctr train --config CONFIG [section.key=value ...] [--resume] [--run-dir DIR]"""

import argparse
from contextlib import nullcontext
from pathlib import Path

from mmctr_jax import interrupt
from mmctr_jax.devices.compilation import keep_compiled_programs, make_deterministic
from mmctr_jax.files import expanded


def main(arguments: list[str]) -> int:
    """Runs `mmctr train`; returns the exit code. Raises: InputError, TrainingError."""
    parser = argparse.ArgumentParser(prog="mmctr train", description="Train a multimodal CTR model.")
    parser.add_argument("--config", required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    parser.add_argument("--run-dir", type=expanded, help="folder or URL of all that is kept (default: runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run; start if there is none")
    begin = "begin with the best weights of another run, such as yesterday's; new ids begin fresh"
    parser.add_argument("--init-from", type=expanded, metavar="RUN_DIR", help=begin)
    parser.add_argument("--deterministic", action="store_true", help="same bits every time on GPUs, too; slower there")
    _add_host_arguments(parser)
    args = parser.parse_intermixed_args(arguments)

    with interrupt.deferred():
        from mmctr_jax.config import load_config
        from mmctr_jax.console import clock, show
        from mmctr_jax.remote import shown

    config = load_config(args.config, args.overrides)
    directory = args.run_dir or Path("runs") / Path(args.config).stem
    if args.deterministic:
        make_deterministic()
    keep_compiled_programs()
    _join_hosts(args)

    with interrupt.deferred():
        from mmctr_jax.runs.mirror import copied_on
        from mmctr_jax.runs.summary import StopReason
        from mmctr_jax.training.loop import train  # after join_hosts: JAX must not be in use before

    with copied_on(directory, args.resume) as folder:
        summary = train(config, folder, args.resume, init_from=args.init_from)
        if summary.stopped is StopReason.INTERRUPTED:
            _say_at_the_end(folder, f"Saved at step {summary.steps:,}. To go on: the same command with --resume.")
            return interrupt.EXIT_CODE
        scores = ", ".join(f"{name} {show(value)}" for name, value in summary.validation.items())
        _say_at_the_end(
            folder,
            f"Done after {summary.epochs:.2f} epochs in {clock(summary.seconds)} ({summary.stopped_because}). "
            f"Best at step {summary.best_step}: validation {scores}. Everything is in {shown(directory)}.",
        )
    return 0


def _say_at_the_end(directory: Path, text: str) -> None:
    """A line for the terminal and, after those that were written while training, for train.log."""
    import jax

    from mmctr_jax.console import log, log_to_file
    from mmctr_jax.runs.directory import RunDirectory

    with log_to_file(RunDirectory(directory).log_file) if jax.process_index() == 0 else nullcontext():
        log.info(text)


def _add_host_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several hosts (start the same command on each; SLURM needs no arguments)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num-processes", type=int, help="number of processes")
    group.add_argument("--process-id", type=int, help="number of this process, from 0")


def _join_hosts(args: argparse.Namespace) -> None:
    """Connects the processes of a run on several hosts, if this is one; only the first prints from then on."""
    with interrupt.deferred():
        import jax

        from mmctr_jax.console import log
        from mmctr_jax.devices import hosts

    hosts.join(args.coordinator, args.num_processes, args.process_id)
    hosts.all_devices()
    if jax.process_index() != 0:
        log.setLevel("WARNING")
