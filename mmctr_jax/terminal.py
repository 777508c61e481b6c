"""Standard output and error that never end what prints to them. Light to import."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any


class Unfailing:
    """A stream whose `write` and `flush` lose what the real one does not take: a terminal that is gone, a pipe that
    nobody reads, a closed descriptor."""

    def __init__(self, stream: Any):
        """None, as Python has it for a closed descriptor, takes nothing."""
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes what can be written; says that it was all."""
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal, as far as the stream can tell."""
        return is_terminal(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def is_terminal(stream: Any) -> bool:
    """Whether a stream, or whatever stands in for one, is a terminal."""
    with suppress(OSError, ValueError, AttributeError):
        return bool(stream.isatty())
    return False


def protect() -> None:
    """Makes the streams of a program unfailing, whatever it was started with; for programs alone, not for libraries."""
    for descriptor in range(3):  # a closed one would be the next file's, and get what libraries print
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        with suppress(OSError, ValueError, AttributeError):
            stream.reconfigure(errors="backslashreplace")  # such as – in an encoding that has none
        if not isinstance(stream, Unfailing):
            setattr(sys, name, Unfailing(stream))
