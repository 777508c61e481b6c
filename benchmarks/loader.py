"""Loader alone: samples/s of shuffled training batches with full histories, by batch size."""

import argparse
import itertools
import tempfile
import time
from collections import deque
from pathlib import Path

import numpy as np

from benchmarks.generate import split_of
from benchmarks.harness import Table, seconds
from mmctr_jax.data.loader import train_batches


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run loader")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--history", type=int, default=64, help="clicks of every history")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured for each batch size")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        split = split_of(Path(folder), np.full(args.rows, args.history))
        print(f"{args.rows:,} rows, histories of {args.history}, padded to {args.history}, shuffled")
        table = Table("batch", "samples/s")
        for batch_size in (128, 512, 1024, 4096):
            batches = train_batches(split, batch_size=batch_size, lengths=(args.history,), seed=0, epochs=1000)

            def take_fifty(batches=batches) -> None:
                deque(itertools.islice(batches, 50), maxlen=0)

            # The first call, which does not count, is past the first epoch's permutation and the filling of the queue.
            taken, start = [], time.perf_counter()
            while time.perf_counter() - start < args.seconds:
                taken.append(seconds(take_fifty, times=1, warm_up=not taken))
            table.row(batch_size, f"{50 * batch_size / np.mean(taken):,.0f}")
