"""What a run tells its user: log lines, and progress with rate and ETA (a bar on a terminal, plain lines elsewhere)."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.terminal import Unfailing, is_terminal

log = logging.getLogger("mmctr_jax")
_quiet = threading.local()  # `on` in threads within `unsaid`
_PLAIN_SECONDS = 10.0  # between two progress lines off a terminal


class _PrintHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # Through sys.stdout as it is now, so that a live bar stays below.
        print(self.format(record), file=Unfailing(sys.stdout), flush=True)


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


class _Kept(logging.Handler):
    """Keeps what was said."""

    def __init__(self):
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def shown() -> Iterator[list[logging.LogRecord]]:
    """Within it log lines are printed where the process has not said what becomes of them, as in a notebook.

    Where it has, by a level or a handler of `mmctr_jax`'s logger or by ones that take its lines, that holds. Nothing
    of this stays behind. Yields what is said as it is said, for a file that is opened later.
    """
    absl = logging.getLogger("absl")
    absl.addFilter(_without_orbax)
    chosen = bool(log.handlers) or log.level != logging.NOTSET or (log.isEnabledFor(logging.INFO) and log.hasHandlers())
    handler, kept, propagate = _PrintHandler(), _Kept(), log.propagate
    if not chosen:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    log.addHandler(kept)
    try:
        with root_logger_kept():
            yield kept.records
    finally:
        log.removeHandler(kept)
        absl.removeFilter(_without_orbax)
        if not chosen:
            log.removeHandler(handler)
            log.setLevel(logging.NOTSET)
            log.propagate = propagate


@contextmanager
def root_logger_kept() -> Iterator[None]:
    """Afterwards the root logger has no handler of absl's, by which Orbax logs: it would keep the host from its own."""
    before = list(logging.root.handlers)
    try:
        yield
    finally:
        for handler in [] if before else list(logging.root.handlers):
            of_absl = getattr(handler.formatter, "_fmt", "") == logging.BASIC_FORMAT
            if type(handler) is logging.StreamHandler and of_absl:
                logging.root.removeHandler(handler)


@contextmanager
def unsaid() -> Iterator[None]:
    """Within it nothing but warnings is told, by this thread."""
    before, _quiet.on = getattr(_quiet, "on", False), True
    try:
        yield
    finally:
        _quiet.on = before


def _is_said(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or not getattr(_quiet, "on", False)


log.addFilter(_is_said)


def _without_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname


@contextmanager
def log_to_file(path: Path, earlier: Iterable[logging.LogRecord] = ()) -> Iterator[None]:
    """Appends log lines, with times, to a file too: earlier ones, those within, and the error that ends it."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for record in list(earlier):
        handler.handle(record)
    log.addHandler(handler)
    try:
        yield
    except Exception as error:
        told = isinstance(error, InputError | TrainingError)  # others are defects: with all that helps to find them
        text = f"error: {error}" if told else "error:"
        info = None if told else (type(error), error, error.__traceback__)
        handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), info))
        raise
    finally:
        log.removeHandler(handler)
        with suppress(OSError):
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
        if is_terminal(sys.stdout) and log.isEnabledFor(logging.INFO) and not getattr(_quiet, "on", False):
            below = getattr(sys.stdout, "rich_proxied_file", sys.stdout)  # within another bar
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                transient=True,
                console=Console(file=Unfailing(below)),
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
