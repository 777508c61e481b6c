"""Host memory and time to load the challenge's shape: 3.6 M rows, 91,717 items, and to read an epoch of batches.

Everything that train.py reads is read by one fresh process each time, whose peak is the kernel's own figure (VmHWM:
resident memory at its highest, JAX, libraries and mapped pages included).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.generate import write_item_info, write_samples


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run memory")
    parser.add_argument("--rows", type=int, default=3_600_000)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return _child(Path(args.child))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print(f"Generating {args.rows:,} rows ...", flush=True)
        write_item_info(folder / "item_info.parquet")
        write_samples(folder / "valid.parquet", 10_000, seed=1)
        for lengths, padded in (("like MicroLens', mean 5", True), ("all 64", False)):
            write_samples(folder / "train.parquet", args.rows, padded=padded)
            for state in ("cache built", "cache reused"):
                print(f"\nHistories {lengths}, {state}:", flush=True)
                subprocess.run([sys.executable, "-m", "benchmarks.run", "memory", "--child", str(folder)], check=True)


def _child(folder: Path) -> None:
    import jax

    from mmctr_jax.config.schema import parse_config
    from mmctr_jax.console import start_logging
    from mmctr_jax.data.loader import train_batches
    from mmctr_jax.devices.sharding import make_mesh, put_replicated
    from mmctr_jax.training.data import load_training_data

    start_logging(quiet=True)
    data = {name: str(folder / f"{name}.parquet") for name in ("train", "valid", "item_info")}
    start = time.perf_counter()
    loaded = load_training_data(parse_config({"data": data | {"cache_dir": str(folder / "cache")}}))
    items = put_replicated(loaded.items.table, make_mesh())
    jax.block_until_ready(items)
    loading = time.perf_counter() - start
    peak_loading = _peak()
    start = time.perf_counter()
    rows = sum(
        len(b["item"])
        for b in train_batches(loaded.train, batch_size=1024, lengths=(4, 8, 16, 32, 64), seed=0, epochs=1)
    )
    reading = time.perf_counter() - start
    print(f"  loading {loading:.1f} s, peak {peak_loading:.2f} GB; an epoch of batches {reading:.1f} s ", end="")
    print(f"({rows / reading:,.0f} samples/s), peak {_peak():.2f} GB")


def _peak() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e9
