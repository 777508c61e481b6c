"""Calibration: from a model's logits to probabilities that are right on average, fitted on the validation rows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from mmctr_jax.errors import InputError
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training import metrics

KINDS = ("platt", "isotonic")
_FEWEST = 20  # rows of either label: fewer tell nothing, of fifths of them least of all


@dataclass(frozen=True)
class Calibration:
    """A rising map of logits, for the checkpoint at `step`.

    platt: slope · logit + intercept (Platt 1999), which leaves every AUC as it is. isotonic: a rising step function
    (Zadrozny & Elkan 2002), linear between its `knots`, which makes ties.
    """

    kind: str
    step: int
    slope: float = 1.0
    intercept: float = 0.0
    knots: tuple[float, ...] = ()  # logits, rising
    at_knots: tuple[float, ...] = ()  # calibrated logits

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """(rows,) logits → (rows,) float64 calibrated logits."""
        logits = logits.astype(np.float64)
        if self.kind == "platt":
            return self.slope * logits + self.intercept
        return np.interp(logits, self.knots, self.at_knots)


def fit(kind: str, step: int, labels: np.ndarray, logits: np.ndarray) -> Calibration:
    """Fits by scikit-learn. labels, logits: (rows,), for the checkpoint at `step`.

    Raises: InputError if higher logits do not mean more clicks, or the rows are too few.
    """
    from sklearn.isotonic import IsotonicRegression  # takes a second, which scoring need not wait for
    from sklearn.linear_model import LogisticRegression

    if np.bincount(labels, minlength=2).min() < _FEWEST:
        raise InputError(f"Calibration needs {_FEWEST} validation rows of each label at least; it was not fitted.")
    logits = logits.astype(np.float64)
    if not metrics.auc(labels, logits) > 0.5:
        raise _useless(metrics.auc(labels, logits))
    if kind == "platt":
        # Not regularised: two parameters. What is fitted is scaled, for logits may be of any size.
        scale = max(float(np.abs(logits).max()), 1e-12)
        model = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(logits[:, None] / scale, labels)
        slope, intercept = float(model.coef_[0, 0]) / scale, float(model.intercept_[0])
        if not slope > 0:
            raise _useless(metrics.auc(labels, logits))
        return Calibration(kind, step, slope, intercept)
    # Never a probability of 0 or 1, which one contrary click would prove infinitely wrong.
    edge = 1 / (len(labels) + 2)
    model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(logits, labels)
    knots, at_knots = model.X_thresholds_, model.y_thresholds_
    return Calibration(kind, step, knots=tuple(knots.tolist()), at_knots=tuple(np.log(at_knots / (1 - at_knots))))


def cross_fitted(kind: str, labels: np.ndarray, logits: np.ndarray, folds: int = 5) -> np.ndarray:
    """(rows,) calibrated logits, each by a fit on the other folds: what calibration does to rows it has not seen.

    Raises: InputError likewise.
    """
    from sklearn.model_selection import StratifiedKFold

    calibrated = np.empty(len(logits))
    for rest, fold in StratifiedKFold(folds, shuffle=True, random_state=0).split(logits, labels):
        calibrated[fold] = fit(kind, 0, labels[rest], logits[rest]).apply(logits[fold])
    return calibrated


def _useless(auc: float) -> InputError:
    return InputError(
        "This model cannot be calibrated: on the validation rows a higher score does not mean more clicks "
        f"(AUC {auc:.4f}); train it longer, or look at what it learned from."
    )


def path(directory: Path) -> Path:
    """Where a run directory keeps its calibration."""
    return RunDirectory(directory).calibration_file


def write(directory: Path, calibration: Calibration) -> None:
    """Keeps a calibration in its run directory, in place of an older one."""
    write_atomically(path(directory), json.dumps(asdict(calibration)) + "\n")


def read(directory: Path, step: int) -> Calibration | None:
    """A run directory's calibration, if it has one of the checkpoint at `step`. Raises: InputError if it is damaged."""
    try:
        raw = json.loads(path(directory).read_text())
        knots, at_knots = (tuple(float(x) for x in raw.pop(name)) for name in ("knots", "at_knots"))
        calibration = Calibration(**raw, knots=knots, at_knots=at_knots)
        numbers = np.array([calibration.slope, calibration.intercept, *knots, *at_knots])
        rising = (np.diff(knots) > 0).all() and (np.diff(at_knots) >= 0).all() and calibration.slope > 0
        shapes = len(knots) == len(at_knots) and (len(knots) > 0) == (calibration.kind == "isotonic")
        if not (calibration.kind in KINDS and np.isfinite(numbers).all() and rising and shapes):
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise InputError(f"{path(directory)} is damaged; remove it, or make it anew with --calibrate.") from None
    return calibration if calibration.step == step else None
