"""Test AUC of a config over several seeds. Finished runs are reused, interrupted ones resumed."""

import argparse
import json
import statistics
from pathlib import Path

from mmctr_jax import cli
from mmctr_jax.config import load_config
from mmctr_jax.prediction import predict
from mmctr_jax.training import train


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run accuracy")
    parser.add_argument("--config", required=True)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 … N")
    parser.add_argument("--labels", help="labels of the test file, if it has none itself")
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/accuracy/CONFIG)")
    args = parser.parse_intermixed_args(argv)
    out = args.out or Path("runs/accuracy") / Path(args.config).stem

    def measure() -> int:
        rows = []
        for seed in range(1, args.seeds + 1):
            run_dir = out / f"seed{seed}"
            config = load_config(args.config, [*args.overrides, f"train.seed={seed}"])
            summary = train(config, run_dir, resume=True)
            result = predict(run_dir, None, None, labels=args.labels)
            rows.append((seed, summary, result))
        print("| seed | validation AUC | test AUC | test grouped AUC | test logloss | epochs | minutes | samples/s |")
        print("|---|---|---|---|---|---|---|---|")
        for seed, summary, result in rows:
            test = result["metrics"]
            print(
                f"| {seed} | {summary['validation']['auc']:.4f} | {test['auc']:.4f} | {test['gauc']:.4f} | "
                f"{test['logloss']:.4f} | {summary['epochs']:.0f} | {summary['seconds'] / 60:.1f} | "
                f"{summary['samples_per_second'] or float('nan'):.0f} |"
            )
        areas = [result["metrics"]["auc"] for _, _, result in rows]
        deviation = statistics.stdev(areas) if len(areas) > 1 else 0.0
        print(f"test AUC {statistics.mean(areas):.4f} ± {deviation:.4f} over {len(areas)} seeds")
        (out / "accuracy.json").write_text(
            json.dumps([{"seed": s, **a, "test": b["metrics"]} for s, a, b in rows], indent=1)
        )
        return 0

    cli.run_main(measure)
