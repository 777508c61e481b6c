"""A tracker that may wait for its server, or fail, without the training waiting or failing with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from queue import Full, Queue

from mmctr_jax.console import log
from mmctr_jax.runs.trackers.base import TrackedRun, Tracker

_WAITING = 10_000  # records that wait for a server; what comes then is lost
_AT_THE_END = 60.0  # seconds that the end of a training waits for it


class InBackground:
    """Calls a tracker in a thread of its own, in order. Its first failure is its last call, and a warning."""

    def __init__(self, name: str, make: Callable[[TrackedRun], Tracker], run: TrackedRun):
        """make: called in the thread, too."""
        self._name, self._make, self._run = name, make, run
        self._calls: Queue[Callable[[Tracker], None] | None] = Queue(_WAITING)
        self._failed = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def open(self, step: int) -> None:
        self._thread.start()
        self._call(lambda tracker: tracker.open(step))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._call(lambda tracker: tracker.add(step, values))

    def flush(self) -> None:
        self._call(lambda tracker: tracker.flush())

    def close(self, failed: bool) -> None:
        self._call(lambda tracker: tracker.close(failed))
        self._call(None)
        end = time.monotonic() + _AT_THE_END
        while self._thread.is_alive() and time.monotonic() < end:
            self._thread.join(0.1)
        if self._thread.is_alive():
            log.warning(f"{self._name} still has records to send after {_AT_THE_END:g} s; they are lost there.")

    def _call(self, call: Callable[[Tracker], None] | None) -> None:
        try:
            self._calls.put_nowait(call)
        except Full:
            self._fail("its server takes no records")

    def _work(self) -> None:
        try:
            tracker = self._make(self._run)
            while (call := self._calls.get()) is not None:
                call(tracker)
        except BaseException as error:  # a tracker's library may raise anything, SystemExit included
            self._fail(next(iter(str(error).splitlines()), "") or type(error).__name__)

    def _fail(self, reason: str) -> None:
        if not self._failed:
            self._failed = True
            log.warning(f"{self._name} gets no more records ({reason.rstrip('.')[:300]}); the training goes on.")
