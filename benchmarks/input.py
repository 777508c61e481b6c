"""Whether loading keeps up with a device: shuffled batches, copied to it, for a stand-in step of a given speed.

The stand-in keeps its device busy for as long as a step of that speed takes, and computes nothing. As in training, a
step is dispatched as soon as its batch is there, and the step before is then waited for. What the device waits is the
time in which it has nothing to do.
"""

import argparse
import itertools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import jax

from benchmarks.generate import LENGTHS, made_up_split
from benchmarks.harness import Table
from benchmarks.published import published_config
from mmctr_jax.data.lengths import training_lengths
from mmctr_jax.data.loader import history_lengths, train_batches
from mmctr_jax.devices.sharding import make_mesh, on_devices


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run input")
    parser.add_argument("--rate", type=float, nargs="+", default=[100_000.0], help="samples/s of the stand-in")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024, 4096])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="measured for each row of the table")
    args = parser.parse_args(argv)
    table = Table("histories", "batch", "stand-in, samples/s", "device waits", "longest wait, ms")
    mesh = make_mesh()
    for (name, full), batch_size, rate in itertools.product(LENGTHS.items(), args.batch, args.rate):
        with tempfile.TemporaryDirectory() as folder:
            split, config = made_up_split(Path(folder), args.rows, full), published_config()
            train = config.train.model_copy(update={"batch_size": batch_size})
            lengths = training_lengths(config.model, train, history_lengths(split))
            batches = train_batches(split, batch_size=batch_size, lengths=lengths, seed=1, epochs=1000)
            steps = int(args.seconds * rate / batch_size)
            waits = waiting(on_devices(batches, mesh), batch_size / rate, steps)
        share = sum(waits) / (sum(waits) + steps * batch_size / rate)
        table.row(name, batch_size, f"{rate:,.0f}", f"{share:.1%}", f"{max(waits) * 1e3:.1f}")


def waiting(batches: Iterable, step: float, steps: int) -> list[float]:
    """Seconds that the device has nothing to do before each of so many steps of `step` seconds; of the first, none."""
    batches = iter(batches)
    jax.block_until_ready(next(batches))  # the first is past the epoch's permutation, and the filling of the queue
    waits, free = [], time.perf_counter()
    for _ in range(steps):
        jax.block_until_ready(next(batches))
        now = time.perf_counter()
        waits.append(max(0.0, now - free) if waits else 0.0)
        done_before, free = free, max(now, free) + step
        time.sleep(max(0.0, done_before - time.perf_counter()))  # the metrics of the step before are read
    return waits
