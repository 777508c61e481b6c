"""What happened during training, step by step: JSON lines, TensorBoard events and a picture of the curves."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from mmctr_jax.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Imports of a module fail, as if it were not installed; if it was imported before, they do not."""
    hides = sys.modules.setdefault(module, None) is None
    try:
        yield
    finally:
        if hides:
            del sys.modules[module]


# Imported only where something is recorded or drawn: scoring, which starts often, does neither.


def _tensorboard() -> Any:
    """tensorboardX. It imports PyTorch where that is installed, only to know its tensors, which takes seconds."""
    with _hidden("torch"):
        import tensorboardX.event_file_writer
        import tensorboardX.proto.event_pb2
        import tensorboardX.summary
    return tensorboardX


class Recorder:
    """Keeps the records of a training. A context manager, to be opened at the step where the run stands."""

    def __init__(self, records: Path, events: Path, curves: Path):
        """Where they go: a file of JSON lines, a folder of TensorBoard events, and a picture (PNG)."""
        self._records, self._events_folder, self._curves = records, events, curves
        self.records: list[dict[str, Any]] = []
        self._file: TextIO | None = None
        self._drawn = time.monotonic()

    def open_at(self, step: int) -> None:
        """Continues after `step`: what an interrupted run wrote beyond it is dropped."""
        self.records = [r for r in read_records(self._records) if r["step"] <= step]
        write_atomically(self._records, "".join(json.dumps(r) + "\n" for r in self.records))
        self._file = open(self._records, "a", encoding="utf-8")
        # Not SummaryWriter: its thread would die in silence where the disk is full, and then block the training.
        self._events_folder.mkdir(exist_ok=True)
        self._tensorboard = _tensorboard()
        self._events = self._tensorboard.event_file_writer.EventsWriter(str(self._events_folder / "events"), f".{step}")
        if step:  # tells TensorBoard to forget what comes later
            kinds = self._tensorboard.proto.event_pb2
            start = kinds.SessionLog(status=kinds.SessionLog.START)
            self._events.write_event(kinds.Event(wall_time=time.time(), step=step + 1, session_log=start))

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if self._file:
            with suppress(OSError) if kind else nullcontext():  # what went wrong first is what counts
                self._events.close()
                self._file.close()

    def add(self, kind: str, step: int, **values: Any) -> None:
        """`kind` is "train" or "validation"; numbers among `values` become TensorBoard scalars too."""
        record = {"kind": kind, "step": step, **values}
        self.records.append(record)
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                summary = self._tensorboard.summary.scalar(f"{kind}/{name}", value)
                event = self._tensorboard.proto.event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
                self._events.write_event(event)

    def draw(self, at_least_every: float = 0.0) -> None:
        """Draws the curves, unless that was done, or the recorder made, less than so many seconds ago."""
        self._events.flush()
        if time.monotonic() - self._drawn >= at_least_every:
            draw_curves(self.records, self._curves)
            self._drawn = time.monotonic()


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records in a file of JSON lines, up to the first that is cut short, as by a kill. Empty without a file."""
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not (isinstance(record, dict) and record.get("kind") and isinstance(record.get("step"), int)):
                break
            records.append(record)
    return records


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
