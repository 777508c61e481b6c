"""Step time by batch size and precision, on whatever device JAX has: made for a GPU.

Full histories, and histories of 4. Beside it the floor of the Adam update at the measured copy rate (28 bytes a
parameter, 24 where histories leave it without a gradient) and the share of the measured matrix rate that the really
needed FLOP reach.
"""

import argparse

import jax
import numpy as np

from benchmarks import flops
from benchmarks.flops import N
from benchmarks.generate import made_up_batch, made_up_items
from benchmarks.harness import Table, copy_rate, matrix_rate, seconds
from benchmarks.published import MeasuredModel, published_config

_COPIED = 1024 if jax.default_backend() == "cpu" else 8192  # megabytes: so many that a launch does not count
RATES = {"float32": ("highest", np.float32), "tf32": ("tensorfloat32", np.float32), "bfloat16": ("default", "bfloat16")}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run step")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024, 4096, 16384])
    parser.add_argument("--length", type=int, nargs="+", default=[4, N])
    parser.add_argument("--precision", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args(argv)
    print(f"{jax.devices()[0].device_kind}; copy rate {(copy := copy_rate(_COPIED)) / 1e9:,.0f} GB/s")
    for precision in args.precision:
        _table(precision, copy, args)


def _table(precision: str, copy: float, args: argparse.Namespace) -> None:
    rate = matrix_rate(*RATES[precision], size=8192 if jax.default_backend() != "cpu" else 4096)
    print(f"\n{precision}: matrix rate {rate / 1e12:.2f} TFLOP/s\n")
    table = Table("batch", "length", "compiled in, s", "ms", "samples/s", "Adam's floor, ms", "share of matrix rate")
    model = MeasuredModel(published_config(f"train.precision={precision}"), made_up_items())

    def steps(batch, number):
        return [model.step(batch) for _ in range(number)]

    for batch_size in args.batch:
        for length in args.length:
            batch = jax.device_put(made_up_batch(batch_size, length))
            compiled = seconds(lambda batch=batch: steps(batch, 2), times=1, warm_up=False)
            time = seconds(lambda batch=batch: steps(batch, args.steps), times=1, warm_up=False) / args.steps
            floor = model.adam_bytes(length) / copy
            share = flops.step(length, batch_size) / time / rate
            cells = (
                f"{compiled:.1f}",
                f"{time * 1e3:.2f}",
                f"{batch_size / time:,.0f}",
                f"{floor * 1e3:.2f}",
                f"{share:.0%}",
            )
            table.row(batch_size, length, *cells)
