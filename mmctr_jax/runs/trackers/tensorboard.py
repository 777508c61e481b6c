"""TensorBoard events, in the run directory."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmctr_jax.runs.trackers.base import TrackedRun


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Imports of a module fail, as if it were not installed; if it was imported before, they do not."""
    hides = sys.modules.setdefault(module, None) is None
    try:
        yield
    finally:
        if hides:
            sys.modules.pop(module, None)


# Imported only where something is recorded: scoring, which starts often, does not.


def _tensorboard() -> Any:
    """tensorboardX. It imports PyTorch where that is installed, only to know its tensors, which takes seconds."""
    with _hidden("torch"):
        import tensorboardX.event_file_writer
        import tensorboardX.proto.event_pb2
        import tensorboardX.summary
    return tensorboardX


class TensorBoard:
    """Writes as it is told, in the thread that tells it: a full disk is the training's matter, too."""

    def __init__(self, run: TrackedRun):
        self._folder = run.folder / "tensorboard"
        self._events: Any = None

    def open(self, step: int) -> None:
        # Not SummaryWriter: its thread would die in silence where the disk is full, and then block the training.
        self._folder.mkdir(exist_ok=True)
        self._library = _tensorboard()
        self._events = self._library.event_file_writer.EventsWriter(str(self._folder / "events"), f".{step}")
        if step:  # tells TensorBoard to forget what comes later
            kinds = self._library.proto.event_pb2
            start = kinds.SessionLog(status=kinds.SessionLog.START)
            self._events.write_event(kinds.Event(wall_time=time.time(), step=step + 1, session_log=start))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            summary = self._library.summary.scalar(name, value)
            event = self._library.proto.event_pb2.Event(wall_time=time.time(), step=step, summary=summary)
            self._events.write_event(event)

    def flush(self) -> None:
        self._events.flush()

    def close(self, failed: bool) -> None:
        if self._events is not None:
            self._events.close()
