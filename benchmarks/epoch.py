"""An epoch as a user trains it: generated files of the challenge's shape, `mmctr train` with the published config."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.generate import write_folder
from benchmarks.published import PUBLISHED


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run epoch")
    parser.add_argument("--rows", type=int, default=3_600_000)
    parser.add_argument("--deterministic", action="store_true", help="as of mmctr train")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as train.batch_size=4096")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print(f"Generating {args.rows:,} rows ...", flush=True)
        run, data = Path(folder) / "run", write_folder(Path(folder), args.rows)
        command = [sys.executable, "-m", "mmctr_jax", "train", "--config", str(PUBLISHED), "--run-dir", str(run)]
        command += ["--deterministic"] * args.deterministic
        start = time.perf_counter()
        once = ["train.epochs=1", "train.checkpoint_every=null"]
        subprocess.run([*command, *data, *once, *args.overrides], check=True)
        taken = time.perf_counter() - start
        rate = json.loads((run / "summary.json").read_text())["samples_per_second"]
        print(f"{args.rows / rate:,.1f} s of steps ({rate:,.0f} samples/s); {taken:,.1f} s from start to end.")
