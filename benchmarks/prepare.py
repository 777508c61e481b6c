"""How long and how much memory `mmctr prepare interactions` takes for a large made-up log."""

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


def shuffled(events: Path) -> int:
    """Bytes that Spark's tasks wrote for others to read, by its event log."""
    found = 0
    for file in events.rglob("*"):
        for line in file.read_text().splitlines() if file.is_file() else ():
            if line.startswith('{"Event":"SparkListenerTaskEnd"'):
                found += json.loads(line)["Task Metrics"]["Shuffle Write Metrics"]["Shuffle Bytes Written"]
    return found


def digests(path: Path) -> dict[str, str]:
    """Of each column of Parquet files: of its values, and of the lengths of its lists, row group by row group."""
    found: dict[str, hashlib._Hash] = {}
    for file in [path] if path.is_file() else sorted(path.glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches():
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if pa.types.is_list(column.type):
                    lengths = pc.list_value_length(column).to_numpy()
                    found.setdefault(f"lengths of {name}", hashlib.sha256()).update(lengths.tobytes())
                    column = column.flatten()
                found.setdefault(name, hashlib.sha256()).update(column.to_numpy(zero_copy_only=False).tobytes())
    return {name: digest.hexdigest() for name, digest in found.items()}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run prepare")
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--csv", action="store_true", help="a CSV file instead of Parquet")
    engines = "one, or both, which are then compared"
    parser.add_argument("--engine", nargs="+", choices=("local", "spark"), default=["local"], help=engines)
    parser.add_argument("options", nargs="*", help="further options of prepare, after --")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / ("log.csv" if args.csv else "log.parquet")
        write_log(source, args.rows, args.users, args.items)
        print(f"{args.rows:,} interactions, {source.stat().st_size / 1e9:.2f} GB {source.suffix[1:]}", flush=True)
        for engine in args.engine:
            out, events = Path(folder) / engine, Path(folder) / "events"
            events.mkdir(exist_ok=True)
            kept = {"enabled": "true", "compress": "false", "dir": events.as_uri()}
            settings = " ".join(f"--conf spark.eventLog.{name}={value}" for name, value in kept.items())
            os.environ.setdefault("PYSPARK_SUBMIT_ARGS", f"{settings} pyspark-shell")
            found = run_command(
                "prepare", "interactions", source, "--out", out, "--engine", engine, "--ignore", "*", *args.options
            )
            size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
            written = f"{size / 1e9:.2f} GB written, {shuffled(events) / 1e9:.2f} GB shuffled"
            print(f"{engine}: {found}, {written}", flush=True)
        for split in ("train", "valid", "test") if len(args.engine) > 1 else ():
            one, other = (digests(Path(folder) / engine / f"{split}.parquet") for engine in args.engine)
            print(f"{split}: {'the same rows in the same order' if one == other else 'NOT the same rows'}")
