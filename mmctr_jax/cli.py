"""What train.py and predict.py share: exit codes, and the processes of a run on several hosts."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from mmctr_jax.console import log, start_logging
from mmctr_jax.errors import InputError, TrainingError


def run_main(main: Callable[[], int]) -> None:
    """Runs a program's main function and exits: 0 done, 1 failure, 2 bad config or data, 130 interrupted after saving.

    Errors meant for the user become one sentence on standard error; others stay tracebacks, for they are ours.
    """
    start_logging()
    try:
        code = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:  # outside of training, where there is nothing to save
        code = 130
    sys.exit(code)


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several hosts (start the same command on each; SLURM needs no arguments)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num-processes", type=int, help="number of processes")
    group.add_argument("--process-id", type=int, help="number of this process, from 0")


def join_hosts(args: argparse.Namespace) -> None:
    """Connects the processes of a run on several hosts, if this is one. Must come before any other use of JAX."""
    import jax

    given = [args.coordinator, args.num_processes, args.process_id]
    if any(value is not None for value in given):
        if any(value is None for value in given):
            raise InputError("--coordinator, --num-processes and --process-id go together; give all three.")
        if not 0 <= args.process_id < args.num_processes:
            raise InputError(f"--process-id {args.process_id} is not in 0 … {args.num_processes - 1}.")
        jax.distributed.initialize(args.coordinator, args.num_processes, args.process_id)
    elif int(os.environ.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in os.environ:
        jax.distributed.initialize()
    if jax.process_index() != 0:
        log.setLevel("WARNING")
