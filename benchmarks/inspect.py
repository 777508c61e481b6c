"""How long and how much memory `mmctr inspect` takes at the challenge's size, on made-up rows."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.generate import write_item_info, write_samples
from benchmarks.measured import run_measured


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run inspect")
    parser.add_argument("--rows", type=int, default=3_600_000)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_item_info(folder / "item_info.parquet")
        write_samples(folder / "valid.parquet", 10_000, seed=1)
        for lengths, padded in (("like MicroLens', mean 5", True), ("all 64", False)):
            write_samples(folder / "train.parquet", args.rows, padded=padded)
            found = run_measured("inspect", folder)
            print(f"{args.rows:,} training rows, histories {lengths}: {found}", flush=True)
