"""mmctr serve DIR [--host 127.0.0.1] [--port 8000] [--example PREPARED] ..."""

import argparse
import os
from typing import Any

from mmctr_jax import interrupt
from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded


def main(arguments: list[str]) -> int:
    """Runs `mmctr serve` until it is told to stop; returns the exit code. Raises: InputError."""
    parser = argparse.ArgumentParser(prog="mmctr serve", description="Answer requests over HTTP with an export.")
    parser.add_argument("directory", type=expanded, metavar="DIR", help="what mmctr export wrote")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    parser.add_argument("--name", default="mmctr", help="of the model, in /v2/models/NAME (default: mmctr)")
    parser.add_argument(
        "--unknown", choices=("refuse", "padding"), default="refuse", help="item ids that the model does not know"
    )
    parser.add_argument("--threads", type=int, help="of one request (default: one for each core)")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port (default: 1)")
    parser.add_argument("--max-candidates", type=int, default=10_000, help="of one request (default: 10,000)")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for one request (default: 10)")
    parser.add_argument("--no-access-log", action="store_true", help="no line for each request")
    parser.add_argument(
        "--example", type=expanded, metavar="PREPARED", help="prepared folder whose users the page shows"
    )
    args = parser.parse_args(arguments)
    if not 0 <= args.port < 2**16:
        parser.error(f"--port {args.port} is not one of 0 … 65535")
    if args.workers < 1 or (args.threads is not None and args.threads < 1):
        parser.error("--workers and --threads must be at least 1")
    if args.max_candidates < 1 or not 0 < args.timeout < 1e6:
        parser.error("--max-candidates and --timeout must be above 0, and --timeout below a million")

    try:
        with interrupt.deferred():
            from mmctr_jax.serve.http import Limits
            from mmctr_jax.serve.scorer import Scorer
            from mmctr_jax.serve.server import Options, serve
    except ImportError as error:
        raise InputError(f"mmctr serve needs {error.name}; install it with: pip install 'mmctr-jax[serve]'") from None

    threads = args.threads or max(1, (os.cpu_count() or 1) // args.workers)
    shown: dict[str, Any] = {}
    if args.example:
        from mmctr_jax.serve.example import example

        shown = example(args.example, Scorer(args.directory))
    serve(
        Options(
            args.directory,
            args.host,
            args.port,
            args.name,
            args.unknown,
            threads,
            Limits(candidates=args.max_candidates, seconds=args.timeout),
            workers=args.workers,
            access_log=not args.no_access_log,
            example=shown,
        )
    )
    return 0
