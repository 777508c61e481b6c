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
from dataclasses import dataclass, field
from pathlib import Path

import jax


@dataclass(frozen=True)
class Part:
    """A command, for the Python that runs this one, and the longest that it may take."""

    title: str
    arguments: str
    seconds: float
    environment: dict[str, str] = field(default_factory=dict)


# On an H100 a step was compiled in some 25 s with bfloat16, and not within a minute with float32. So trainings have one
# length, and one part gives XLA fewer kernels to try, to show what trying them costs.
_ONE_LENGTH, _STEPS = "train.length_buckets=[8]", "-m benchmarks.run step --steps 20 --batch"
PARTS = (
    Part("The same numbers as on a CPU", "-m pytest -q tests/test_golden.py tests/test_savings.py -k 'not eight'", 120),
    Part("Steps", f"{_STEPS} 128 4096 --precision bfloat16", 120),
    Part("Where the time goes", "-m benchmarks.run kernels --batch 4096 --length 64 train.precision=bfloat16", 45),
    Part("An epoch", f"-m benchmarks.run epoch train.batch_size=4096 train.precision=bfloat16 {_ONE_LENGTH}", 150),
    Part(
        "Steps, exact, with cuBLAS's kernels alone",
        f"{_STEPS} 128 --length 4 --precision float32",
        90,
        {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=false"},
    ),
    Part("Steps, exact", f"{_STEPS} 128 --length 4 --precision float32 tf32", 150),
    Part("Beside the released design", "-m benchmarks.run peer --batch 1024 --device cuda", 90),
    Part("The same bits every time", f"-m benchmarks.run epoch --rows 200000 --deterministic {_ONE_LENGTH}", 90),
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
                command,
                env=environment | part.environment,
                timeout=limit,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            printed, verdict = done.stdout, f"Ended with exit code {done.returncode}.\n" if done.returncode else ""
        except subprocess.TimeoutExpired as error:
            printed = error.output.decode() if isinstance(error.output, bytes) else error.output or ""
            verdict = f"Stopped after {max(limit, 0):.0f} s.\n"
        flags = "".join(f"{name}={value} " for name, value in part.environment.items())
        text = f"\n## {part.title}\n\n```\n{flags}python {part.arguments}\n```\n\n{printed.strip()}\n\n{verdict}"
        with out.open("a") as stream:
            stream.write(text)
        print(text, flush=True)
