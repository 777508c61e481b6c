"""Days that follow each other: a model that goes on from yesterday's, on today's rows, beside one trained anew on all.

python -m benchmarks.run replay --log data/ml-latest-small/ratings.csv --items data/ml-latest-small/movies.csv

MovieLens' ratings in the order of their times; 4 stars or more is a click, fewer are its non-clicks. The first day is
60 % of the log, four more are 10 % each. Each model is scored on the day after its last, the same rows for both.
What is timed are the commands of a daily job, `mmctr prepare` and `mmctr train`, each a process of its own; what they
compile is kept from day to day, apart for either kind. Both have what the first day compiled, which is the same run.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Table, run_command
from mmctr_jax.prediction.predict import predict

SHARES = (0.6, 0.7, 0.8, 0.9, 1.0)  # of the log, up to the end of each day
VALID = 0.05
PROGRAMS = "programs"  # the folder of what is compiled


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="replay", description=__doc__)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(argv)
    ratings = pl.read_csv(args.log).sort("timestamp", "userId", "movieId", maintain_order=True)
    ratings = ratings.with_columns(click=(pl.col("rating") >= 4).cast(pl.Int64)).drop("rating")
    ends = [ratings["timestamp"][min(int(share * len(ratings)), len(ratings) - 1)] for share in SHARES]
    table = Table("seed", "day", "warm: test AUC", "s", "anew: test AUC", "s")
    differences, seconds = [], []
    for seed in range(1, args.seeds + 1):
        with tempfile.TemporaryDirectory() as there:
            folder, before = Path(there), None
            for day in range(1, len(ends)):
                now = ratings.filter(pl.col("timestamp") < ends[day] + (day == len(ends) - 1))
                now.write_csv(folder / f"log{day}.csv")
                anew = _day(folder, day, "anew", args.items, now, ends, None, seed)
                if before is None:
                    shutil.copytree(folder / "anew" / PROGRAMS, folder / "warm" / PROGRAMS)
                    before = folder / "anew" / f"run{day}"
                else:
                    warm = _day(folder, day, "warm", args.items, now, ends, before, seed)
                    before = folder / "warm" / f"run{day}"
                    table.row(seed, day, f"{warm[0]:.4f}", f"{warm[1]:.0f}", f"{anew[0]:.4f}", f"{anew[1]:.0f}")
                    differences.append(warm[0] - anew[0])
                    seconds.append((warm[1], anew[1]))
    mean, deviation = np.mean(differences), np.std(differences, ddof=1)
    warm, anew = np.sum(seconds, axis=0)
    print(f"\nWarm less anew: {mean:+.4f} ± {deviation:.4f} over {len(differences)} days and seeds, ", end="")
    print(f"in {warm / anew:.2f} times the time.")


def _day(folder, day, kind, items, log, ends, before, seed) -> tuple[float, float]:
    """(AUC on the day after, seconds of preparation and training). before: the run that a warm one goes on from."""
    out, run = folder / kind / f"data{day}", folder / kind / f"run{day}"
    clicks = log.filter(pl.col("click") == 1)
    since = ends[day - 2] if before else None
    counted = clicks if since is None else clicks.filter(pl.col("timestamp") >= since)
    test = (counted["timestamp"] >= ends[day - 1]).sum() / len(counted)
    arguments = ["interactions", folder / f"log{day}.csv", "--items", items, "--user", "userId", "--item", "movieId"]
    arguments += ["--time", "timestamp", "--label", "click", "--tags", "genres", "--text", "title", "--ignore", "*"]
    arguments += ["--split", "time", "--test", test, "--valid", VALID * (1 - test), "--out", out]
    arguments += ["--like", before, "--since", since] if before else []
    training = ["--config", out / f"data{day}.yaml", "--run-dir", run, f"train.seed={seed}"]
    training += [f"data.cache_dir={folder / kind / 'cache'}", *(["--init-from", before] if before else [])]
    kept = {"XDG_CACHE_HOME": str(folder / kind / PROGRAMS)}
    kept["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"  # or the folder's path would be a part of JAX's keys
    start = time.perf_counter()
    run_command("prepare", *arguments, **kept)
    run_command("train", *training, **kept)
    taken = time.perf_counter() - start
    return predict(run)["metrics"]["auc"], taken
