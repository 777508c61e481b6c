"""What a run tells its user: log lines, and progress with rate and ETA (a bar on a terminal, plain lines elsewhere)."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from mmctr_jax.errors import InputError, TrainingError

log = logging.getLogger("mmctr_jax")
_PLAIN_SECONDS = 10.0  # between two progress lines off a terminal


class _PrintHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # A terminal that is gone, a pipe that nobody reads, a closed descriptor: no reason to stop working.
        with suppress(OSError, ValueError, AttributeError):
            print(self.format(record), flush=True)  # through sys.stdout as it is now, so that a live bar stays below


@contextmanager
def shown() -> Iterator[None]:
    """Within it log lines and progress are printed if nobody else listens, as in a notebook."""
    if log.handlers or log.isEnabledFor(logging.INFO):
        yield
        return
    absl = logging.getLogger("absl")
    handler, before = _PrintHandler(), (log.level, log.propagate, absl.level)
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.INFO)
    absl.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = before[1]
        log.setLevel(before[0])
        absl.setLevel(before[2])


@contextmanager
def unsaid() -> Iterator[None]:
    """Within it nothing but warnings is told."""
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _on_terminal() -> bool:
    """Whether a bar can be drawn: not on a pipe, a closed descriptor, or a notebook's stand-in."""
    try:
        return sys.stdout.isatty()
    except (AttributeError, ValueError, OSError):
        return False


def start_logging(quiet: bool = False) -> None:
    """Sends log lines to standard output; `quiet` keeps all but warnings back (processes other than the first)."""
    if not log.handlers:
        log.addHandler(_PrintHandler())
    with suppress(AttributeError, ValueError, OSError):  # what a terminal of another encoding cannot show
        sys.stdout.reconfigure(errors="replace")
    log.propagate = False
    logging.raiseExceptions = False  # a train.log on a full disk; what cannot be done without says so itself
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    # Orbax and its helpers report every save at INFO, their own deprecations at WARNING, and what they raise, six times
    # over with tracebacks, at ERROR: what is raised is what we tell.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


@contextmanager
def log_to_file(path: Path) -> Iterator[None]:
    """Appends log lines, with times, to a file too, and at the end the error that ended it all."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    try:
        yield
    except BaseException as error:
        said = isinstance(error, InputError | TrainingError)
        text, trace = str(error) or type(error).__name__, None if said else sys.exc_info()
        record = log.makeRecord(log.name, logging.ERROR, "", 0, text, (), trace)
        with suppress(OSError, ValueError):
            handler.handle(record)
        raise
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
        if _on_terminal() and log.isEnabledFor(logging.INFO):
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
        self._draw(lambda bar: bar.start())
        return self

    def _draw(self, action: Callable[[RichProgress], None]) -> None:
        """A terminal that has gone away ends the drawing, not the work."""
        if self._bar:
            try:
                action(self._bar)
            except (OSError, ValueError):
                self._bar = None

    def __exit__(self, *_) -> None:
        self._draw(lambda bar: bar.stop())

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
            self._draw(lambda bar: bar.update(self._task, completed=self.done, text=text))
        elif now - self._last_line >= _PLAIN_SECONDS:
            self._last_line = now
            eta = clock((self.total - self.done) / max(self.rate, 1e-9))
            percent = 100 * self.done / max(self.total, 1)
            log.info(f"{self.label}: {self.done:,} of {self.total:,} {self.unit} ({percent:.0f} %)  {text}  ETA {eta}")
