"""The table that ends `make demo`: the quickstart model on its test split, beside item popularity on the same rows."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from mmctr_jax import cli
from mmctr_jax.prediction.predict import predict
from mmctr_jax.training.metrics import evaluate

RUN, DATA = Path("runs/quickstart"), Path("data/prepared/movielens")


def popularity_auc() -> float:
    """Test AUC of scoring each target by its number of clicks in the training rows."""
    train, test = (pq.read_table(DATA / f"{name}.parquet") for name in ("train", "test"))
    labels = pq.read_table(DATA / "test_labels.parquet")["label"].to_numpy()
    clicked = train["item_id"].to_numpy()[train["label"].to_numpy() == 1]
    clicks = np.bincount(clicked, minlength=max(clicked.max(), test["item_id"].to_numpy().max()) + 1)
    return evaluate(labels, clicks[test["item_id"].to_numpy()].astype(np.float32))["auc"]


def main() -> int:
    summary = json.loads((RUN / "summary.json").read_text())
    result = predict(RUN, None, None)
    rows = [
        ("validation AUC", f"{summary['validation']['auc']:.4f}"),
        ("test AUC", f"{result['metrics']['auc']:.4f}"),
        ("test AUC of item popularity", f"{popularity_auc():.4f}"),
        ("test grouped AUC", f"{result['metrics']['gauc']:.4f}"),
        ("test logloss", f"{result['metrics']['logloss']:.4f}"),
        ("training samples/s", f"{summary['samples_per_second']:,.0f}" if summary["samples_per_second"] else "–"),
        ("scoring samples/s", f"{result['rows'] / result['seconds']:,.0f}"),
    ]
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"  {name:<{width}}  {value:>8}")
    print(
        f"\n  prepared data   {DATA}/\n  run directory   {RUN}/ (curves.png, metrics.jsonl, train.log, checkpoints/)"
        f"\n  predictions     {result['out']}"
        "\n  to serve it     pip install '.[serve]'"
        "\n                  mmctr export runs/quickstart --out export/movielens --original-ids"
        "\n                  mmctr serve export/movielens --example data/prepared/movielens"
        "\n                  and open http://127.0.0.1:8000"
    )
    return 0


if __name__ == "__main__":
    cli.run_main(main)
