"""Loader alone: samples/s of shuffled training batches with full histories, by batch size."""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.generate import generated_split
from mmctr_jax.data.loader import train_batches


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run loader")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--history", type=int, default=64, help="clicks of every history")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured for each batch size")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        split = generated_split(Path(folder), args.rows, np.full(args.rows, args.history))
        print(f"{args.rows:,} rows, histories of {args.history}, padded to {args.history}, shuffled")
        print("| batch | samples/s |")
        print("|---|---|")
        for batch_size in (128, 512, 1024, 4096):
            batches = train_batches(split, batch_size=batch_size, lengths=(args.history,), seed=0, epochs=1000)
            for _ in range(20):  # past the first epoch's permutation and the filling of the queue
                next(batches)
            taken, start = 0, time.perf_counter()
            while time.perf_counter() - start < args.seconds:
                next(batches)
                taken += batch_size
            print(f"| {batch_size} | {taken / (time.perf_counter() - start):,.0f} |", flush=True)
