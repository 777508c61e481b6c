"""The command `mmctr`: one subcommand for each module of `mmctr_jax.commands`, exit codes, errors as one sentence.

Light to import: `mmctr --help` loads neither JAX nor any other library, and no command loads what it does not need.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable

from mmctr_jax import __version__, interrupt, terminal
from mmctr_jax.devices.allocation import keep_freed_memory
from mmctr_jax.errors import InputError, NoRoomError, TrainingError, one_line

COMMANDS = {
    "prepare": "turn a raw log of clicks into the files that training takes",
    "embed": "make item vectors of titles and pictures",
    "inspect": "look at prepared data before training: one page, with warnings",
    "train": "train a model; --resume continues an interrupted run",
    "predict": "score rows with a trained model",
    "export": "make a folder to serve a trained model from",
    "serve": "answer requests over HTTP with an exported model",
    "report": "show what one or several trainings led to: one page",
    "compare": "train several configs over several seeds: one table",
    "tune": "search for good settings, or vary them one at a time",
    "convert": "bring released PyTorch weights in, or take ours out",
}
_COMPUTE = ("train", "predict", "export", "report", "compare", "tune")
"""The commands that compute a model's steps."""


def main() -> None:
    """The entry point of `mmctr` and of `python -m mmctr_jax`."""
    terminal.protect()
    parser = argparse.ArgumentParser(
        prog="mmctr",
        description="Multimodal click-through-rate prediction in JAX.",
        epilog="`mmctr COMMAND --help` says what a command takes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mmctr {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    args, _ = parser.parse_known_args(sys.argv[1:2])
    run(args.command, sys.argv[2:])


def run(command: str, arguments: list[str] | None = None) -> None:
    """Runs a command and exits, see `run_main`.

    Args:
      arguments: those of the command (default: the process's own).
    """
    if command in _COMPUTE:
        keep_freed_memory()

    def main() -> int:
        with interrupt.deferred():
            module = importlib.import_module(f"mmctr_jax.commands.{command}")
        return module.main(sys.argv[1:] if arguments is None else arguments)

    run_main(main)


def run_main(main: Callable[[], int]) -> None:
    """Runs a program's main function and exits: 0 done, 1 failure, 2 bad config or data, 130 interrupted after saving.

    Errors meant for the user become one sentence on standard error, and so do refusals of the system that nobody
    expected, such as no folder for temporary files. Others stay tracebacks, for they are defects.
    """
    terminal.protect()
    try:
        with interrupt.watched():
            with interrupt.deferred():
                from mmctr_jax.console import start_logging
            start_logging()
            code = main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1 if isinstance(error, NoRoomError) else 2
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        problem = one_line(f"{where}{error.strerror or error}")
        print(f"error: {problem}; correct that, then run the same again.", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:  # outside of the training loop, which saves
        print("error: interrupted before there was anything to save.", file=sys.stderr)
        code = interrupt.EXIT_CODE
    sys.exit(code)
