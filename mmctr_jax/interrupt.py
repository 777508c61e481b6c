"""Ctrl-C and SIGTERM: the first asks the loop to save and stop, a second one ends the process at once."""

from __future__ import annotations

import os
import signal

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmctr_jax.console import log

EXIT_CODE = 130
_ASK_OTHERS_EVERY = 10  # steps; asking costs a round trip between hosts


class Interrupt:
    """A context manager; within it, `requested(step)` says whether to save and stop, the same on every process."""

    def __init__(self):
        self._asked = False

    def __enter__(self) -> Interrupt:
        self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, *_) -> None:
        if self._asked:
            os._exit(EXIT_CODE)
        self._asked = True
        log.info("Interrupted: finishing the step and saving; interrupt again to end at once without saving.")

    def requested(self, step: int) -> bool:
        if jax.process_count() == 1:
            return self._asked
        if step % _ASK_OTHERS_EVERY:
            return False
        return bool(multihost_utils.process_allgather(np.array(self._asked)).any())
