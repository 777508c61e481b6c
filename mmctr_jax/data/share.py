"""The part of each batch that one process reads."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """Which rows of each global batch this process reads: part `index` of `count` equal parts.

    Batches are filled up to a multiple of `devices` (of all processes together), so that every device gets as many.
    """

    index: int = 0
    count: int = 1
    devices: int = 1


WHOLE = Share()
"""A single process on a single device reads all rows."""
