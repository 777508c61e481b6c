"""Runs → all numbers of the page. What is not defined is None."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit
from sklearn.metrics import roc_curve

from mmctr_jax.console import Progress, show
from mmctr_jax.data.cache import Split
from mmctr_jax.data.items import fingerprint
from mmctr_jax.formats import count, shown
from mmctr_jax.pages import intervals as bootstrap
from mmctr_jax.pages.intervals import Compared, Estimate
from mmctr_jax.pages.report.runs import SPLITS, Run, Scored
from mmctr_jax.pages.report.slices import Slicing, slicings
from mmctr_jax.prediction.reliability import CalibrationCurve, calibration_curve, error_by_chance
from mmctr_jax.training import metrics


def estimate(found: Estimate | None, form: str = "z.4f") -> str:
    """0.8011 [0.7893, 0.8125]"""
    if found is None:
        return "–"
    ends = f" [{found.interval[0]:{form}}, {found.interval[1]:{form}}]" if found.interval else ""
    return f"{found.value:{form}}{ends}"


@dataclass(frozen=True)
class Calibrated:
    """A run's calibrated scores of one split."""

    logloss: float = shown("logloss, calibrated", show)
    mean: float = shown("mean score, calibrated", show)
    curve: CalibrationCurve = shown("calibration error, calibrated", lambda curve: show(curve.error))


@dataclass(frozen=True)
class SplitMetrics:
    """A run's scores of one split."""

    run: Run
    rows: int = shown("rows", count)
    auc: Compared | None = shown("AUC", estimate)
    gauc: float | None = shown("grouped AUC", show)
    logloss: Compared = shown("logloss", estimate)
    mean: float = shown("mean score", show)
    label_mean: float = shown("label mean", show)
    curve: CalibrationCurve = shown("calibration error", lambda curve: show(curve.error))
    error_by_chance: float = shown("… to be expected by chance", show)
    calibrated: Calibrated | None
    roc: tuple[np.ndarray, np.ndarray] | None  # false and true positive rates
    scores: list[np.ndarray]  # of the rows of label 0, and of label 1


@dataclass(frozen=True)
class SliceMetrics:
    """Of one slice of the rows."""

    name: str
    rows: int
    aucs: list[Compared | None]  # by run


@dataclass(frozen=True)
class Group:
    """Runs on the same rows of a split, so that they can be compared row by row; differences are to the first."""

    runs: list[SplitMetrics]
    sliced: list[tuple[Slicing, list[SliceMetrics]]]


@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    runs: list[Run]
    notes: list[str]
    splits: dict[str, list[Group]]  # valid, test: mostly one group each


def measure(runs: list[Run]) -> Report:
    """Every number of the page."""
    notes = [f"{run.name}: {note}" if len(runs) > 1 else note for run in runs for note in run.notes]
    splits = {}
    for split in SPLITS:
        by_rows: dict[str, list[Run]] = {}
        for run in runs:
            if split in run.scores:
                by_rows.setdefault(_identity(run.scores[split].rows), []).append(run)
        groups = list(by_rows.values())
        for group in groups[1:]:
            names = ", ".join(run.name for run in group)
            notes.append(f"{names}: the rows of {split} are not those of {groups[0][0].name}; no differences of these.")
        if groups:
            splits[split] = [_group(group, split, notes) for group in groups]
    return Report(runs, list(dict.fromkeys(notes)), splits)


def _identity(rows: Split) -> str:
    """The same for the same rows, whatever features a run reads of them."""
    return fingerprint({"label": rows.label, "item": rows.item, "history": rows.history_offsets})


def _group(runs: list[Run], split: str, notes: list[str]) -> Group:
    scored = [run.scores[split] for run in runs]
    rows, labels, logits = scored[0].rows, scored[0].rows.label, [one.logits for one in scored]
    trained = [run.train for run in runs if run.train]
    if len(set(map(_identity, trained))) > 1:
        notes.append(f"Rows of train differ between runs; popularity and new items in {split} are those of the first.")
    side = {name: values for one in scored for name, values in one.rows.side.items()}
    cuts = list(slicings(rows, side, trained[0] if trained else None))
    sliced = []
    with Progress(f"Drawing rows of {split}", rows.rows * (1 + len(cuts)), "rows") as progress:
        aucs = bootstrap.compare([bootstrap.area(labels, one) for one in logits], rows.rows)
        losses = bootstrap.compare([bootstrap.average(metrics.losses(labels, one)) for one in logits], rows.rows)
        progress.advance(rows.rows)
        for cut in cuts:
            sliced.append((cut, _slices(cut, labels, logits)))
            progress.advance(rows.rows)
    return Group([_metrics(*of_run) for of_run in zip(runs, scored, aucs, losses, strict=True)], sliced)


def _slices(cut: Slicing, labels: np.ndarray, logits: list[np.ndarray]) -> list[SliceMetrics]:
    found = []
    for i, name in enumerate(cut.names):
        chosen = np.flatnonzero(cut.place == i)
        if len(chosen):
            areas = [bootstrap.area(labels[chosen], one[chosen]) for one in logits]
            found.append(SliceMetrics(name, len(chosen), bootstrap.compare(areas, len(chosen))))
    return found


def _metrics(run: Run, scored: Scored, auc: Compared | None, logloss: Compared) -> SplitMetrics:
    labels, logits = scored.rows.label, scored.logits
    grouped = math.nan if scored.users is None else metrics.grouped_auc(labels, logits, scored.users)
    scores, calibrated = expit(logits.astype(np.float64)), None
    if scored.calibrated is not None:
        right = expit(scored.calibrated)
        curve = calibration_curve(labels, right)
        calibrated = Calibrated(metrics.logloss(labels, scored.calibrated), float(right.mean()), curve)
    return SplitMetrics(
        run=run,
        rows=len(labels),
        auc=auc,
        gauc=grouped if math.isfinite(grouped) else None,
        logloss=logloss,
        mean=float(scores.mean()),
        label_mean=float(labels.mean()),
        curve=calibration_curve(labels, scores),
        error_by_chance=error_by_chance(scores),
        calibrated=calibrated,
        roc=roc_curve(labels, logits)[:2] if auc else None,
        scores=[scores[labels == label] for label in (0, 1)],
    )
