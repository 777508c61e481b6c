"""How long and how much memory `mmctr prepare interactions` takes for a large made-up log."""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.harness import run_command


def write_log(path: Path, rows: int, users: int, items: int, seed: int = 0) -> None:
    """Clicks in time order; activity of users and popularity of items fall off like real ones' (Pareto)."""
    rng = np.random.default_rng(seed)

    def draw(n: int) -> np.ndarray:
        share = np.cumsum(rng.pareto(1.5, n) + 0.05)
        return np.searchsorted(share, rng.random(rows) * share[-1]) + 1

    table = pa.table(
        {"user": draw(users), "item": draw(items), "time": 1_700_000_000 + np.sort(rng.integers(0, 30 * 86_400, rows))}
    )
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pq.write_table(table, path)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run prepare")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--csv", action="store_true", help="a CSV file instead of Parquet")
    parser.add_argument("options", nargs="*", help="further options of prepare, after --")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / ("log.csv" if args.csv else "log.parquet"), Path(folder) / "out"
        write_log(source, args.rows, args.users, args.items)
        print(f"{args.rows:,} interactions, {source.stat().st_size / 1e9:.2f} GB {source.suffix[1:]}", flush=True)
        found = run_command("prepare", "interactions", source, "--out", out, *args.options)
        size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
        print(f"{found}, written {size / 1e9:.2f} GB")
