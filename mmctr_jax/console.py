"""What a run tells its user: log lines, and progress with rate and ETA (a bar on a terminal, plain lines elsewhere)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

log = logging.getLogger("mmctr_jax")
_PLAIN_SECONDS = 10.0  # between two progress lines off a terminal


class _PrintHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # A terminal that is gone, a pipe that nobody reads, a closed descriptor: no reason to stop working.
        with suppress(OSError, ValueError, AttributeError):
            print(self.format(record), flush=True)  # through sys.stdout as it is now, so that a live bar stays below


def start_logging(quiet: bool = False) -> None:
    """Sends log lines to standard output; `quiet` keeps all but warnings back (processes other than the first)."""
    if not log.handlers:
        log.addHandler(_PrintHandler())
    log.propagate = False
    logging.raiseExceptions = False  # a train.log on a full disk; what cannot be done without says so itself
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    # Orbax and its helpers report every save at INFO, their own deprecations at WARNING, and what they raise, six times
    # over with tracebacks, at ERROR: what is raised is what we tell.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Appends log lines, with times, to a file too."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def clock(seconds: float) -> str:
    """75.3 → '1:15', 3700 → '1:01:40'."""
    minutes, s = divmod(int(max(seconds, 0)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def show(value: float | None) -> str:
    """A metric with four decimals; a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


class Progress:
    """Progress over `total` units of work, `done` of which are behind us. A context manager; `advance` is cheap."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0):
        self.label, self.total, self.unit, self.done = label, total, unit, done
        self._first, self._start = done, time.monotonic()
        self._paused = 0.0
        self._last_line = self._start
        self._bar: RichProgress | None = None
        if sys.stdout.isatty() and log.isEnabledFor(logging.INFO):
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                transient=True,
            )
            self._task = self._bar.add_task(label, total=total, completed=done, text="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar:
            self._bar.stop()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What happens inside will not happen again, such as compiling: it does not count for rate and ETA."""
        start = time.monotonic()
        yield
        self._paused += time.monotonic() - start

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._start - self._paused, 1e-9)

    def advance(self, units: int, text: str = "") -> None:
        """Counts `units` more as done; `text` is shown beside the rate."""
        self.done += units
        now = time.monotonic()
        text = f"{self.rate:,.0f} {self.unit}/s  {text}"
        if self._bar:
            self._bar.update(self._task, completed=self.done, text=text)
        elif now - self._last_line >= _PLAIN_SECONDS:
            self._last_line = now
            eta = clock((self.total - self.done) / max(self.rate, 1e-9))
            percent = 100 * self.done / max(self.total, 1)
            log.info(f"{self.label}: {self.done:,} of {self.total:,} {self.unit} ({percent:.0f} %)  {text}  ETA {eta}")
