"""How long and how much memory `mmctr embed` takes for many items whose vectors are there already."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import run_command


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run embed")
    parser.add_argument("--items", type=int, default=91_717)
    args = parser.parse_args(argv)
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ids = np.arange(1, args.items + 1)
        pq.write_table(pa.table({"item_id": ids, "item_title": [""] * args.items}), folder / "item_feature.parquet")
        pq.write_table(pa.table({"item_id": np.arange(args.items + 1)}), folder / "item_info.parquet")
        for name, width in (("text", 768), ("image", 1024)):  # a spectrum that falls off, as encoders' does
            hidden = rng.normal(size=(args.items, 300)) / np.arange(1, 301) ** 0.5
            vectors = hidden @ rng.normal(size=(300, width)) + 0.1 * rng.normal(size=(args.items, width))
            np.save(folder / f"{name}.npy", vectors.astype(np.float32))
        sources = ("--text", folder / "text.npy", "--image", folder / "image.npy", "--rows-of", "item_feature")
        print(f"{args.items:,} items, 768 + 1,024 → 128: {run_command('embed', folder, *sources)}")
