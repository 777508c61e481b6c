"""Ctrl-C, SIGTERM and what schedulers and closed terminals send: the first asks to stop.

A second Ctrl-C or SIGTERM ends the process at once. SIGHUP, SIGUSR1 and SIGUSR2 ask, and never end it: SLURM's
`--signal` comes some time before its SIGTERM, which must not cut the saving short. Before and after the training loop
to stop is a KeyboardInterrupt, within it to finish the step and save. Light to import: a program watches for signals
before it imports anything else.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

EXIT_CODE = 130
_ASK_OTHERS_EVERY = 10  # steps; asking costs a round trip between hosts
_log = logging.getLogger("mmctr_jax")
_ENDING = (signal.SIGINT, signal.SIGTERM)
_ASKING = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
_asked = _pressed = _raises = False


@contextmanager
def watched() -> Iterator[None]:
    """Within it the first signal raises KeyboardInterrupt."""
    global _asked, _pressed, _raises
    before = _take_signals(_handle)
    _raises = True
    told, tells = os.pipe()
    os.set_blocking(tells, False)
    signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    threading.Thread(target=_end_at_the_second, args=(told,), daemon=True).start()
    hook = sys.unraisablehook
    sys.unraisablehook = functools.partial(_ask_again, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        _asked = _pressed = _raises = False
        signal.set_wakeup_fd(-1)
        os.close(tells)
        _give_back(before)


def _ask_again(hook: Callable, lost: Any) -> None:
    """Where the KeyboardInterrupt came up in a callback of the garbage collector, from which nothing is raised."""
    global _asked
    if not issubclass(lost.exc_type, KeyboardInterrupt):
        hook(lost)
        return
    _asked = False
    taken = [number for number in _ASKING if signal.getsignal(number) is not signal.SIG_IGN]
    threading.Timer(0.05, os.kill, (os.getpid(), taken[0] if taken else signal.SIGINT)).start()


def _end_at_the_second(told: int) -> None:
    """A handler has to wait until the main thread leaves what it is in, a compilation for instance; this does not."""
    asked = 0
    while number := os.read(told, 1):
        asked += number[0] in _ENDING
        if asked == 2:
            os._exit(EXIT_CODE)
    os.close(told)


def _take_signals(handler: Callable) -> dict[int, Any]:
    wanted = [
        n for n in (*_ENDING, *_ASKING) if n in _ENDING or signal.getsignal(n) is not signal.SIG_IGN
    ]  # as of nohup
    return {number: signal.signal(number, handler) for number in wanted}


def _give_back(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _handle(number: int, *_) -> None:
    global _asked, _pressed
    if number in _ENDING:
        if _pressed:
            os._exit(EXIT_CODE)
        _pressed = True
    first, _asked = not _asked, True
    if _raises and first:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[None]:
    """Within it a signal waits for the end: modules that are imported, and libraries that read files in loops of their
    own, catch exceptions of any kind. Off the main thread, which alone is interrupted, it does nothing."""
    global _raises
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _raises = _raises, False
    try:
        yield
    finally:
        _raises = before
    if _asked and before:
        raise KeyboardInterrupt


class Interrupt:
    """A context manager; within it, `requested(step)` says whether to save and stop, the same on every process.

    Off the main thread, as in a service's worker, no signal can be taken: it says so, and stops nothing.
    """

    def __enter__(self) -> Interrupt:
        global _raises
        self._before = None
        if threading.current_thread() is not threading.main_thread():
            _log.info("Not in the main thread: no signal stops this training.")
            return self
        self._before = _raises, _take_signals(self._handle)
        _raises = False
        return self

    def __exit__(self, *_) -> None:
        global _asked, _pressed, _raises
        if self._before is None:
            return
        _asked = _pressed = False
        _raises, handlers = self._before
        _give_back(handlers)

    def _handle(self, number: int, *_) -> None:
        _handle(number)
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
