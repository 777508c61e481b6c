"""How long and how much memory `mmctr inspect` takes at the challenge's size, on made-up rows."""

import argparse
import tempfile
from pathlib import Path

from benchmarks.generate import LENGTHS, write_folder
from benchmarks.harness import run_command


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run inspect")
    parser.add_argument("--rows", type=int, default=3_600_000)
    args = parser.parse_args(argv)
    for name, full in LENGTHS.items():
        with tempfile.TemporaryDirectory() as folder:
            write_folder(Path(folder), args.rows, full)
            print(f"{args.rows:,} training rows, histories {name}: {run_command('inspect', folder)}", flush=True)
