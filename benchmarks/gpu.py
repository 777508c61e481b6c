"""All that is to be measured on a GPU, one after the other, in ten minutes; written to a file as it comes.

The numbers first: the golden files of the released code, and the savings, on the card. Then steps, an epoch, the input,
and the released design in PyTorch. What fails or takes too long is written down, and the rest goes on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax


@dataclass(frozen=True)
class Part:
    """A command, for the Python that runs this one, and the longest that it may take."""

    title: str
    arguments: str
    seconds: float


PARTS = (
    Part("The same numbers as on a CPU", "-m pytest -q tests/test_golden.py tests/test_savings.py -k 'not eight'", 120),
    Part("Steps", "-m benchmarks.run step --steps 10 --precision bfloat16", 90),
    Part("Steps, exact", "-m benchmarks.run step --batch 128 4096 --steps 10 --precision float32 tf32", 60),
    Part("An epoch", "-m benchmarks.run epoch train.batch_size=4096 train.precision=bfloat16", 150),
    Part("Batch 128", "-m benchmarks.run epoch --rows 200000", 60),
    Part("Batch 128, the same bits every time", "-m benchmarks.run epoch --rows 200000 --deterministic", 60),
    Part("Beside the released design", "-m benchmarks.run peer --batch 1024 --device cuda", 60),
    Part("Start", "-m benchmarks.run startup", 45),
    Part("Input", "-m benchmarks.run input --seconds 3 --batch 128 4096", 30),
)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run gpu")
    parser.add_argument("--out", type=Path, default=Path("GPU.md"))
    parser.add_argument("--seconds", type=float, default=600.0, help="for all of it")
    args = parser.parse_args(argv)
    if jax.default_backend() != "gpu":
        raise SystemExit('JAX finds no GPU here; on a machine with one: pip install -e ".[gpu]", then this again.')
    args.out.write_text(f"# On {jax.device_count()} × {jax.devices()[0].device_kind}, jax {jax.__version__}\n")
    run(PARTS, args.out, args.seconds)


def run(parts: Sequence[Part], out: Path, seconds: float) -> None:
    """Runs the parts, adding to `out` what each prints; none goes on past `seconds` from now."""
    end = time.monotonic() + seconds
    environment = os.environ | {"JAX_PLATFORMS": "cuda,cpu", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    for part in parts:
        limit = min(part.seconds, end - time.monotonic())
        command = [sys.executable, *shlex.split(part.arguments)]
        try:
            if limit <= 0:
                raise subprocess.TimeoutExpired(command, 0, output="")
            done = subprocess.run(
                command, env=environment, timeout=limit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            printed, verdict = done.stdout, f"Ended with exit code {done.returncode}.\n" if done.returncode else ""
        except subprocess.TimeoutExpired as error:
            printed = error.output.decode() if isinstance(error.output, bytes) else error.output or ""
            verdict = f"Stopped after {max(limit, 0):.0f} s.\n"
        text = f"\n## {part.title}\n\n```\npython {part.arguments}\n```\n\n{printed.strip()}\n\n{verdict}"
        with out.open("a") as stream:
            stream.write(text)
        print(text, flush=True)
