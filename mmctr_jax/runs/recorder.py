"""What happened during training, step by step: JSON lines, trackers and a picture of the curves."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mmctr_jax.console import log
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.trackers import Tracker

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_KEYS = {
    "train": {"step", "loss", "learning_rate"},
    "validation": {"step", "auc", "logloss", "improved", "learning_rate"},
}
"""What a record of each kind has at least."""


class Recorder:
    """Keeps the records of a training. A context manager, to be opened at the step where the run stands."""

    def __init__(self, records: Path, curves: Path, trackers: Sequence[Tracker]):
        """Where they go: a file of JSON lines, a picture (PNG), and trackers."""
        self._records, self._curves, self._trackers = records, curves, trackers
        self.records: list[dict[str, Any]] = []
        self._file: TextIO | None = None
        self._drawn = time.monotonic()
        self._draws = True

    def open_at(self, step: int) -> None:
        """Continues after `step`: what an interrupted run wrote beyond it is dropped."""
        found, damaged = _read(self._records)
        if damaged:
            log.warning(f"{self._records}: {damaged:,} damaged lines are left out.")
        self.records = [r for r in found if r["step"] <= step]
        write_atomically(self._records, "".join(json.dumps(r) + "\n" for r in self.records))
        self._file = open(self._records, "a", encoding="utf-8")
        for tracker in self._trackers:
            tracker.open(step)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._file:
            with suppress(OSError) if kind else nullcontext():  # what went wrong first is what counts
                for tracker in self._trackers:
                    tracker.close(failed=kind is not None)
                self._file.close()

    def add(self, kind: str, step: int, **values: Any) -> None:
        """`kind` is "train" or "validation"; trackers get the numbers among `values`."""
        record = {"kind": kind, "step": step, **values}
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        numbers = {f"{kind}/{name}": value for name, value in values.items() if isinstance(value, (int, float))}
        for tracker in self._trackers:
            tracker.add(step, numbers)

    def draw(self, at_least_every: float = 0.0) -> None:
        """Draws the curves, unless that was done, or the recorder made, less than so many seconds ago."""
        for tracker in self._trackers:
            tracker.flush()
        if time.monotonic() - self._drawn >= at_least_every:
            try:
                draw_curves(self.records, self._curves)
            except OSError as error:  # no folder that matplotlib can keep things in, either
                if self._draws:
                    log.warning(f"{self._curves} is not drawn: {error.strerror or error}. The training goes on.")
                self._draws = False
            self._drawn = time.monotonic()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records in a file of JSON lines, without those that are damaged or cut short. Empty without a file."""
    return _read(path)[0]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records, and how many lines are damaged, apart from a last one that a kill cut short."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else [""]
    found = [_record(line) for line in lines]
    return [record for record in found if record], sum(record is None for record in found[:-1])


def _record(line: str) -> dict[str, Any] | None:
    """The record that a line holds; None if it holds none, or less than is known of its kind."""
    try:
        record = json.loads(line)
        return record if _KEYS[record["kind"]] <= record.keys() and isinstance(record["step"], int) else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def draw_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Loss, validation AUC and learning rate over steps, as one PNG."""
    train = [r for r in records if r["kind"] == "train"]
    validation = [r for r in records if r["kind"] == "validation"]
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    loss, auc, rate = figure.subplots(1, 3)
    loss.plot([r["step"] for r in train], [r["loss"] for r in train], label="training")
    loss.plot([r["step"] for r in validation], [r["logloss"] for r in validation], "o-", label="validation")
    loss.set(title="Loss (binary cross-entropy)", xlabel="step")
    if train or validation:
        loss.legend()
    auc.plot([r["step"] for r in validation], [r["auc"] for r in validation], "o-", color="C1")
    best = max((r for r in validation if r["improved"]), key=lambda r: r["step"], default=None)
    if best:
        auc.axvline(best["step"], color="0.7", linestyle="--", zorder=0)
        auc.annotate(
            f"best {best['auc']:.4f}", (best["step"], best["auc"]), (4, -14), textcoords="offset points", fontsize=9
        )
    auc.set(title="Validation AUC", xlabel="step")
    rate.step([r["step"] for r in train], [r["learning_rate"] for r in train], where="post", color="C2")
    rate.set(title="Learning rate", xlabel="step", yscale="log")
    for axes in (loss, auc, rate):
        axes.grid(alpha=0.3)
        axes.ticklabel_format(axis="x", style="plain")
        axes.locator_params(axis="x", nbins=6)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all."""
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)
