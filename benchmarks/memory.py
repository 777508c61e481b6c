"""Host memory and time to load the challenge's shape: 3.6 M rows, 91,717 items, and to read an epoch of batches.

Everything that train.py reads is read by one fresh process each time, whose peak is the kernel's own figure (VmHWM:
resident memory at its highest, JAX, libraries and mapped pages included).
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.generate import LENGTHS, write_folder
from benchmarks.harness import in_new_process


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run memory")
    parser.add_argument("--rows", type=int, default=3_600_000)
    args = parser.parse_args(argv)
    for name, full in LENGTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            print(f"Generating {args.rows:,} rows ...", flush=True)
            overrides = write_folder(Path(folder), args.rows, full)
            for state in ("cache built", "cache reused"):
                print(f"Histories {name}, {state}: {in_new_process(load_and_read, ' '.join(overrides))}", flush=True)


def load_and_read(overrides: str) -> None:
    """Loads all that a training loads, then an epoch of batches; prints seconds and peak memory of both."""
    import jax

    from benchmarks.published import published_config
    from mmctr_jax.console import start_logging
    from mmctr_jax.data.loader import train_batches
    from mmctr_jax.devices.sharding import make_mesh, put_replicated
    from mmctr_jax.training.data import load_training_data

    start_logging(quiet=True)
    start = time.perf_counter()
    loaded = load_training_data(published_config(*overrides.split(" ")))
    items = put_replicated(loaded.items.table, make_mesh())
    jax.block_until_ready(items)
    loading, peak, start = time.perf_counter() - start, _peak(), time.perf_counter()
    batches = train_batches(loaded.train, batch_size=1024, lengths=(4, 8, 16, 32, 64), seed=0, epochs=1)
    rows = sum(len(batch["item"]) for batch in batches)
    reading = time.perf_counter() - start
    print(f"loading {loading:.1f} s, peak {peak:.2f} GB; an epoch of batches {reading:.1f} s ", end="")
    print(f"({rows / reading:,.0f} samples/s), peak {_peak():.2f} GB", end="")


def _peak() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9
