"""An epoch as a user trains it: generated files of the challenge's shape, train.py with configs/microlens_1m.yaml."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.generate import write_item_info, write_samples

ROOT = Path(__file__).parents[1]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run epoch")
    parser.add_argument("--rows", type=int, default=3_600_000)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as train.batch_size=4096")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        print(f"Generating {args.rows:,} rows ...", flush=True)
        write_item_info(folder / "item_info.parquet")
        write_samples(folder / "train.parquet", args.rows)
        write_samples(folder / "valid.parquet", 10_000, seed=1)
        data = [f"data.{name}={folder / name}.parquet" for name in ("train", "valid", "item_info")]
        data += [f"data.cache_dir={folder / 'cache'}", "train.epochs=1", "train.checkpoint_every=null"]
        command = [sys.executable, str(ROOT / "train.py"), "--config", str(ROOT / "configs" / "microlens_1m.yaml")]
        start = time.perf_counter()
        subprocess.run([*command, "--run-dir", str(folder / "run"), *data, *args.overrides], check=True)
        taken = time.perf_counter() - start
        summary = json.loads((folder / "run" / "summary.json").read_text())
        rate = summary["samples_per_second"]
        print(f"{args.rows / rate:,.1f} s of steps ({rate:,.0f} samples/s); {taken:,.1f} s from start to end.")
