"""Runs → all numbers of the page, as plain data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_curve

from mmctr_jax.config import Config
from mmctr_jax.console import Progress
from mmctr_jax.data.cache import Split
from mmctr_jax.pages import intervals as bootstrap
from mmctr_jax.pages.report.scored_runs import Run, Scored
from mmctr_jax.pages.report.slices import Slicing, slicings
from mmctr_jax.training import metrics

SPLITS = ("valid", "test")
BINS = 15  # of the calibration curve
_BARS = 40  # of the scores' histogram
_POINTS = 200  # of an ROC curve, drawn


def measure(runs: list[Run]) -> dict[str, Any]:
    """Every number of the page; what is not defined is null.

    Runs are compared row by row where their rows are the same. So each split has groups of runs, mostly one.
    """
    notes = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes]
    splits: dict[str, list[dict[str, Any]]] = {}
    for split in SPLITS:
        groups = _groups(runs, split)
        for group in groups[1:]:
            names = ", ".join(run.name for run in group)
            notes.append(f"{names}: the rows of {split} are not those of {groups[0][0].name}; no differences of these.")
        if groups:
            splits[split] = [_group(group, split, notes) for group in groups]
    return {
        "names": [run.name for run in runs],
        "notes": list(dict.fromkeys(notes)),
        "runs": [_facts(run) for run in runs],
        "curves": [_curves(run) for run in runs],
        "splits": splits,
    }


def _facts(run: Run) -> dict[str, Any]:
    """What was trained on what, and how far."""
    config, summary, metadata = run.config, run.summary, run.metadata
    best = max((r for r in run.records if r.get("improved")), key=lambda r: r["step"], default={})
    last = run.records[-1] if run.records else {}
    trained = [r for r in run.records if r["kind"] == "train"]
    return {
        "state": run.state,
        "model": config.model.name,
        "item_features": [_item_feature(f) for f in config.features.item_features],
        "side_features": [side.name for side in config.features.side],
        "files": {name: [path, run.file_rows.get(name)] for name, path in _files(config).items()},
        "items": config.features.num_items - 1,
        "users": run.users,
        "parameters": summary.get("parameters"),
        "steps": summary.get("steps", last.get("step")),
        "epochs": summary.get("epochs", trained[-1].get("epoch") if trained else None),
        "best_step": best.get("step"),
        "best_auc": best.get("auc"),
        "scored_step": run.step,
        "seconds": summary.get("seconds"),
        "samples_per_second": trained[-1].get("samples_per_second") if trained else None,
        "devices": metadata.get("devices"),
        "precision": config.train.precision,
        "seed": config.train.seed,
        "python": metadata.get("python"),
        "versions": metadata.get("versions") or {},
        "git": metadata.get("git"),
        "config": run.text,
    }


def _files(config: Config) -> dict[str, str]:
    names = ("train", "valid", "test", "test_labels", "item_info")
    return {name: path for name in names if (path := getattr(config.data, name))}


def _item_feature(feature: Any) -> str:
    return feature.describe()


def _curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    """[(step, value)] of each curve."""
    curves = {}
    for curve, kind, key in (
        ("training loss", "train", "loss"),
        ("validation logloss", "validation", "logloss"),
        ("validation AUC", "validation", "auc"),
        ("learning rate", "train", "learning_rate"),
    ):
        curves[curve] = [(r["step"], r[key]) for r in run.records if r["kind"] == kind and r.get(key) is not None]
    return curves


def _groups(runs: list[Run], split: str) -> list[list[Run]]:
    groups: list[list[Run]] = []
    for run in runs:
        if split in run.scores:
            rows = run.scores[split].rows
            same = next((group for group in groups if _same_rows(group[0].scores[split].rows, rows)), None)
            if same is None:
                groups.append([run])
            else:
                same.append(run)
    return groups


def _same_rows(a: Split, b: Split) -> bool:
    """Whether they have the same labels, targets and history lengths, row by row."""
    return all(map(np.array_equal, (a.label, a.item, a.history_offsets), (b.label, b.item, b.history_offsets)))


def _group(group: list[Run], split: str, notes: list[str]) -> dict[str, Any]:
    """Metrics, curves and slices of runs on the same rows; differences are to the first."""
    scored = [run.scores[split] for run in group]
    rows, labels = scored[0].rows, scored[0].rows.label
    seen = [run.seen for run in group if run.seen is not None]
    if any(not seen[0].equals(other) for other in seen[1:]):
        notes.append(f"Rows of train differ between runs; popularity and new items in {split} are those of the first.")
    side: dict[str, np.ndarray] = {}
    for run, one in zip(group, scored, strict=True):
        for feature in run.config.features.side:
            side.setdefault(feature.name, one.rows.side[feature.name])
    cuts = list(slicings(rows, list(side.items()), seen[0] if seen else None))
    with Progress(f"Drawing rows of {split}", rows.rows * (1 + len(cuts)), "rows") as progress:
        logits = [one.logits for one in scored]
        figures = _compare(labels, logits, with_logloss=True)
        progress.advance(rows.rows)
        slices = []
        for cut in cuts:
            slices.append(_slices(cut, labels, logits))
            progress.advance(rows.rows)
    return {
        "names": [run.name for run in group],
        "rows": rows.rows,
        "label_mean": float(labels.mean()),
        "draws": bootstrap.count_draws(rows.rows),
        "runs": [_metrics(one) | figure for one, figure in zip(scored, figures, strict=True)],
        "slices": slices,
    }


def _metrics(scored: Scored) -> dict[str, Any]:
    """The figures of one run that need no draws."""
    labels = scored.rows.label
    grouped = math.nan if scored.users is None else metrics.grouped_auc(labels, scored.logits, scored.users)
    return {
        "gauc": grouped if math.isfinite(grouped) else None,
        "probabilities": _probabilities(labels, scored.logits),
        "calibrated": None if scored.calibrated is None else _probabilities(labels, scored.calibrated),
        "roc": _roc(labels, scored.logits),
        "histogram": _histogram(labels, scored.logits),
    }


def _probabilities(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """How far scores are probabilities."""
    scores = expit(logits.astype(np.float64))
    bins = calibration_bins(labels, scores)
    return {
        "logloss": metrics.logloss(labels, logits),
        "mean": float(scores.mean()),
        "bins": bins,
        "error": calibration_error(bins),
        "error_by_chance": _error_by_chance(scores),
    }


def _places(scores: np.ndarray) -> np.ndarray:
    """(rows,) bin of each score: of equal count, but that equal scores share one."""
    _, inverse, count = np.unique(scores, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - count / 2  # of the equal ones, in order
    return (BINS * middle / len(scores)).astype(np.int64)[inverse]


def calibration_bins(labels: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """Mean score and label mean of at most 15 bins of equal count, from the lowest scores to the highest."""
    place = _places(scores)
    rows = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, values, minlength=BINS) for values in (scores, labels)]
    return [
        {"rows": int(n), "score": float(score / n), "label": float(label / n)}
        for n, score, label in zip(rows, *sums, strict=True)
        if n
    ]


def calibration_error(bins: list[dict[str, Any]]) -> float:
    """Σ n_b/n·|mean score − label mean| (Naeini et al. 2015)."""
    return sum(b["rows"] * abs(b["score"] - b["label"]) for b in bins) / sum(b["rows"] for b in bins)


def _error_by_chance(scores: np.ndarray) -> float:
    """The error to expect if scores were the true probabilities: E|x| = √(2/π)·σ of a bin's label mean, normal."""
    place = _places(scores)
    deviation = np.sqrt(np.bincount(place, scores * (1 - scores)))  # of a bin's number of clicks
    return float(math.sqrt(2 / math.pi) * deviation.sum() / len(scores))


def _roc(labels: np.ndarray, logits: np.ndarray) -> list[tuple[float, float]] | None:
    """[(false, true positive rate)], thinned for drawing; null where a class is missing."""
    if labels.min() == labels.max():
        return None
    false, true, _ = roc_curve(labels, logits)
    kept = np.unique(np.linspace(0, len(false) - 1, _POINTS).round().astype(int))
    return list(zip(false[kept].tolist(), true[kept].tolist(), strict=True))


def _histogram(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """Share of the rows of each label by score; null where there are none."""
    scores = expit(logits.astype(np.float64))
    edges = np.linspace(scores.min(), scores.max(), _BARS + 1) if np.ptp(scores) else np.array([0.0, 1.0])
    shares = []
    for label in (0, 1):
        heights, _ = np.histogram(scores[labels == label], edges)
        shares.append((heights / heights.sum()).tolist() if heights.sum() else None)
    return {"edges": edges.tolist(), "shares": shares}


def _slices(cut: Slicing, labels: np.ndarray, logits: list[np.ndarray]) -> dict[str, Any]:
    found = []
    for i, name in enumerate(cut.names):
        chosen = np.flatnonzero(cut.place == i)
        if len(chosen):
            figures = _compare(labels[chosen], [one[chosen] for one in logits])
            found.append({"name": name, "rows": len(chosen), "runs": figures})
    return {"by": cut.by, "unit": cut.unit, "left_out": cut.left_out, "slices": found}


def _compare(labels: np.ndarray, logits: list[np.ndarray], with_logloss: bool = False) -> list[dict[str, Any]]:
    """Per run: AUC, and what it is more than the first run's, with intervals; the same of logloss if asked for.

    {"auc": {"value", "interval"}, "auc_more": likewise, and null for the first}
    """
    kinds = {"auc": [bootstrap.area(labels, one) for one in logits]}
    if with_logloss:
        losses = [np.logaddexp(0, one) - labels * one for one in (x.astype(np.float64) for x in logits)]
        kinds["logloss"] = [bootstrap.average(loss) for loss in losses]
    whole = np.ones((1, len(labels)), np.int64)
    found: list[dict[str, Any]] = [{} for _ in logits]
    drawn = bootstrap.values([figure for figures in kinds.values() for figure in figures], len(labels))
    for (kind, figures), of_kind in zip(kinds.items(), np.split(drawn, len(kinds)), strict=True):
        values = [figure(whole)[0] for figure in figures]
        for i, run in enumerate(found):
            run[kind] = _with_interval(values[i], of_kind[i])
            run[f"{kind}_more"] = _with_interval(values[i] - values[0], of_kind[i] - of_kind[0]) if i else None
    return found


def _with_interval(value: float, drawn: np.ndarray) -> dict[str, Any] | None:
    return {"value": float(value), "interval": bootstrap.interval(drawn)} if np.isfinite(value) else None
