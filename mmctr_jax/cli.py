"""What train.py and predict.py share: exit codes, and the processes of a run on several hosts."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from mmctr_jax import interrupt
from mmctr_jax.errors import InputError, TrainingError


def run_main(main: Callable[[], int]) -> None:
    """Runs a program's main function and exits: 0 done, 1 failure, 2 bad config or data, 130 interrupted after saving.

    Errors meant for the user become one sentence on standard error; others stay tracebacks, for they are ours.
    """
    try:
        with interrupt.watched():
            with interrupt.deferred():
                from mmctr_jax.console import start_logging
            start_logging()
            code = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:  # outside of the training loop, which saves
        print("error: interrupted before there was anything to save.", file=sys.stderr)
        code = interrupt.EXIT_CODE
    sys.exit(code)


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles for the next run, where the environment (JAX_COMPILATION_CACHE_DIR) says, or else
    in the user's cache folder.

    There a folder for each kind of CPU: a program compiled for another one may end in an illegal instruction.
    """
    with interrupt.deferred():
        import jax  # not above: a program that ends with its arguments need not wait for it

    if jax.config.jax_compilation_cache_dir is not None:
        return
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")  # as x86 and ARM say it
    kind = hashlib.sha256(features.encode()).hexdigest()[:12]
    with contextlib.suppress(OSError, RuntimeError):  # no such place here: then every run compiles
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "mmctr_jax" / f"{platform.machine()}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def make_deterministic() -> None:
    """Lets XLA choose only GPU programs that give the same bits every time. Must come before any other use of JAX."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()


def add_host_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several hosts (start the same command on each; SLURM needs no arguments)")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--num-processes", type=int, help="number of processes")
    group.add_argument("--process-id", type=int, help="number of this process, from 0")


def join_hosts(args: argparse.Namespace) -> None:
    """Connects the processes of a run on several hosts, if this is one; only the first goes on speaking."""
    with interrupt.deferred():
        import jax

        from mmctr_jax import hosts
        from mmctr_jax.console import log

    hosts.join(args.coordinator, args.num_processes, args.process_id)
    if jax.process_index() != 0:
        log.setLevel("WARNING")
