"""Ctrl-C and SIGTERM: the first asks to stop, a second one ends the process at once.

Before and after the training loop to stop is a KeyboardInterrupt, within it to finish the step and save. Light to
import: a program watches for signals before it imports anything else.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_CODE = 130
_ASK_OTHERS_EVERY = 10  # steps; asking costs a round trip between hosts
_log = logging.getLogger("mmctr_jax")
_asked = _raises = False


@contextmanager
def watched() -> Iterator[None]:
    """Within it the first signal raises KeyboardInterrupt."""
    global _asked, _raises
    before = _take_signals(_handle)
    _raises = True
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_the_second, args=(told,), daemon=True).start()
    try:
        yield
    finally:
        _asked = _raises = False
        signal.set_wakeup_fd(-1)
        os.close(tells)
        _give_back(before)


def _end_at_the_second(told: int) -> None:
    """A handler has to wait until the main thread leaves what it is in, a compilation for instance; this does not."""
    asked = 0
    while number := os.read(told, 1):
        asked += number[0] in (signal.SIGINT, signal.SIGTERM)
        if asked == 2:
            os._exit(EXIT_CODE)
    os.close(told)


def _take_signals(handler: Callable) -> dict[int, Any]:
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}


def _give_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _handle(*_) -> None:
    global _asked
    if _asked:
        os._exit(EXIT_CODE)
    _asked = True
    if _raises:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[None]:
    """Within it a signal waits for the end: while modules are imported, libraries catch exceptions of any kind."""
    global _raises
    before, _raises = _raises, False
    try:
        yield
    finally:
        _raises = before
    if _asked and before:
        raise KeyboardInterrupt


class Interrupt:
    """A context manager; within it, `requested(step)` says whether to save and stop, the same on every process."""

    def __enter__(self) -> Interrupt:
        global _raises
        self._before = _raises, _take_signals(self._handle)
        _raises = False
        return self

    def __exit__(self, *_) -> None:
        global _asked, _raises
        _asked, (_raises, handlers) = False, self._before
        _give_back(handlers)

    def _handle(self, *_) -> None:
        _handle()
        _log.info("Interrupted: finishing the step and saving; interrupt again to end at once without saving.")

    def requested(self, step: int) -> bool:
        """Whether to save and stop after `step`. Several processes ask each other, every tenth step, and agree."""
        import jax
        import numpy as np
        from jax.experimental import multihost_utils

        if jax.process_count() == 1:
            return _asked
        if step % _ASK_OTHERS_EVERY:
            return False
        return bool(multihost_utils.process_allgather(np.array(_asked)).any())
