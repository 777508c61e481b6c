"""What a user would take instead, on the same rows: popularity, co-clicks, an SVD, LightGBM, an MLP and DIN; and ours.

python -m benchmarks.run rivals --data data/prepared/movielens
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from benchmarks.harness import Table, duration
from benchmarks.made_features import count, features, mean_cosine, out_of_fold, pairs, read_items, read_rows
from mmctr_jax.config import Config, load_config, parse_config
from mmctr_jax.pages.intervals import area, compare
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training.loop import train
from mmctr_jax.training.metrics import evaluate

LEAVES = (7, 15, 31, 63)
RATES, DROPOUTS = (1e-3, 3e-3), (0.0, 0.3)
LONGEST = {"epochs": 8, "patience": 1}
_SHARED = {"embedding_dim": 64, "embedding_init_std": 0.01}
NETWORKS = {  # each with the learning rate and id_dropout that are best on validation, for as long as it rises
    "MLP": _SHARED | {"name": "without_transformer", "dcn": {"cross_layers": 0, "deep": [256, 128]}, "head": []},
    "DIN": _SHARED | {"name": "din", "attention": [64, 32], "deep": [256, 128], "embedding_dim": 32},
}


def trees(train, valid, test, labels, valid_labels) -> tuple[np.ndarray, np.ndarray]:
    """(valid, test) probabilities of LightGBM, with the number of leaves that is best on validation."""
    try:
        import lightgbm
    except ImportError:
        raise SystemExit("rivals needs LightGBM; install it with: pip install '.[rivals]'") from None
    best = None
    for leaves in LEAVES:
        settings = {"num_leaves": leaves, "learning_rate": 0.05, "n_estimators": 4000, "min_child_samples": 200}
        model = lightgbm.LGBMClassifier(**settings, subsample=0.8, subsample_freq=1, colsample_bytree=0.5, verbose=-1)
        stop = lightgbm.early_stopping(100, verbose=False)
        model.fit(train, labels, eval_X=valid, eval_y=valid_labels, eval_metric="auc", callbacks=[stop])
        auc = model.best_score_["valid_0"]["auc"]
        if best is None or auc > best[0]:
            best = auc, model
    return best[1].predict_proba(valid)[:, 1], best[1].predict_proba(test)[:, 1]


def of_folder(folder: Path, config: Path | None) -> Config:
    """The config (default: the ready one of `mmctr prepare`), of the folder's files."""
    chosen = load_config(config or folder / f"{folder.name}.yaml")
    files = {name: str(folder / f"{name}.parquet") for name in ("train", "valid", "test", "test_labels", "item_info")}
    return _changed(chosen, data=chosen.data.model_dump(mode="json") | files)


def _changed(config: Config, **sections: Any) -> Config:
    return parse_config(config.model_dump(mode="json") | sections)


def _train(config: Config) -> dict[str, Any]:
    return config.train.model_dump(mode="json")


Curve = list[tuple[float, float]]
"""Minutes, validation AUC."""


def network(config: Config, directory: Path) -> tuple[np.ndarray, np.ndarray, Curve]:
    """(valid, test) logits of a model that is trained into `directory`, and its validations."""
    start = time.perf_counter()
    summary = train(config, directory)
    minutes = (time.perf_counter() - start) / 60
    records = [r for r in RunDirectory(directory).read_records() if r["kind"] == "validation"]
    curve = [(minutes * record["step"] / summary.steps, record["auc"]) for record in records]
    predictor = Predictor.load(directory)
    return predictor.logits(config.data.valid), predictor.logits(config.data.test), curve


def draw(curves: dict[str, Curve], path: Path, title: str) -> None:
    """Validation AUC against minutes; what is not trained in epochs is one point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for name, curve in curves.items():
        minutes, aucs = zip(*curve, strict=True)
        (line,) = axes.plot(minutes, aucs, "o-" if len(curve) > 1 else "D", markersize=5)
        best = int(np.argmax(aucs))
        beside = (6, 4) if len(curve) > 1 else (7, -11)
        axes.annotate(name, (minutes[best], aucs[best]), beside, textcoords="offset points", color=line.get_color())
    axes.set(title=title, xlabel="minutes", ylabel="validation AUC")
    axes.margins(x=0.15, y=0.1)
    axes.set_xlim(left=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(argv: list[str]) -> None:
    """Prints one table. The test file is scored once for each row; intervals are of the paired bootstrap."""
    parser = argparse.ArgumentParser(prog="rivals", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a prepared folder")
    parser.add_argument("--config", type=Path, help="of our model (default: the one that `mmctr prepare` wrote there)")
    parser.add_argument("--figure", type=Path, help="picture of validation AUC against minutes")
    args = parser.parse_args(argv)
    config = of_folder(args.data, args.config)
    rows, valid, test = (read_rows(args.data, name) for name in ("train", "valid", "test"))
    items = read_items(args.data)
    start = time.perf_counter()
    counts = count(rows, len(items.vectors))
    counted = time.perf_counter() - start
    table = Table("rival", "time", "validation AUC", "test AUC", "test logloss")
    scores = {}

    def row(name, seconds, of_valid, of_test, probabilities=True):
        found = [evaluate(of.label, score) for of, score in ((valid, of_valid), (test, of_test))]
        loss = f"{found[1]['logloss']:.4f}" if probabilities else "–"
        table.row(name, duration(seconds), *(f"{of['auc']:.4f}" for of in found), loss)
        scores[name] = of_test

    def simple(name, score):
        row(name, counted, *(score(of).astype(np.float32) for of in (valid, test)), probabilities=False)

    simple("popularity", lambda of: counts.clicks[of.item])
    simple("co-clicks", lambda of: pairs(counts.together, of).sum(axis=1))
    simple("frozen vectors, cosine", lambda of: mean_cosine(items.vectors, of))
    best = max(counts.svds, key=lambda svd: evaluate(valid.label, mean_cosine(svd, valid).astype(np.float32))["auc"])
    simple("SVD of clicks, cosine", lambda of: mean_cosine(best, of))
    start = time.perf_counter()
    made = [out_of_fold(rows, items, len(items.vectors)), *(features(of, counts, items) for of in (valid, test))]
    # With few clicks, what is made of histories can hide what the columns say: the better on validation counts.
    tried = [trees(*x, rows.label, valid.label) for x in (made, [of.side for of in (rows, valid, test)]) if x[0].size]
    of_valid, of_test = max(tried, key=lambda found: evaluate(valid.label, logit(found[0]))["auc"])
    seconds = counted + time.perf_counter() - start
    row("LightGBM", seconds, logit(of_valid), logit(of_test))
    curves: dict[str, Curve] = {"LightGBM": [(seconds / 60, evaluate(valid.label, logit(of_valid))["auc"])]}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in NETWORKS.items():
            tried = []
            for rate, dropout in itertools.product(RATES, DROPOUTS):
                same = {"max_history": config.model.max_history, "id_dropout": dropout}  # all see the same clicks
                changed = _changed(config, model=model | same, train=_train(config) | LONGEST | {"learning_rate": rate})
                start = time.perf_counter()
                of_valid, of_test, curve = network(changed, Path(folder) / f"{name}-{rate:g}-{dropout:g}")
                seconds = time.perf_counter() - start
                settings = f"learning rate {rate:g}, id_dropout {dropout:g}"
                tried.append((max(auc for _, auc in curve), settings, seconds, of_valid, of_test, curve))
            _, settings, seconds, of_valid, of_test, curves[name] = max(tried, key=lambda each: each[0])
            row(f"{name}, {settings}", seconds, of_valid, of_test)
        start = time.perf_counter()
        of_valid, of_test, curves[config.model.name] = network(config, Path(folder) / config.model.name)
        row(config.model.name, time.perf_counter() - start, of_valid, of_test)
    if args.figure:
        draw(curves, args.figure, f"{args.data.name}: {len(rows.item):,} rows, {os.cpu_count()} CPU cores")
    ours = scores.pop(config.model.name)
    print(
        f"\nTest AUC of {config.model.name} less that of each, and what 95 % of paired bootstrap draws lie between:\n"
    )
    table = Table("rival", "difference", "from", "to")
    for name, theirs in scores.items():
        more = compare([area(test.label, theirs), area(test.label, ours)], len(ours))[1].more
        table.row(name, *(f"{value:+.4f}" for value in (more.value, *more.interval)))
