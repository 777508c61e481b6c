"""How long a training was at work, and how fast its steps were."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Stopwatch:
    """Times of a training, of all its sessions together. For reporting alone; saved with the run's position.

    Steps are timed from one `lap` to the next, loading included. Compiling, validating and saving do not count.
    """

    seconds: float = 0.0
    """At work, as of the last `update`."""
    stepping_rows: int = 0
    """Rows trained on in the laps that count."""
    stepping_seconds: float = 0.0
    """What these laps took."""

    def __post_init__(self) -> None:
        self._began = time.monotonic() - self.seconds
        self._lap_began: float | None = None

    @property
    def running(self) -> bool:
        """Whether a lap has begun that will count."""
        return self._lap_began is not None

    @property
    def samples_per_second(self) -> float | None:
        """None before the first lap that counts."""
        return self.stepping_rows / self.stepping_seconds if self.stepping_seconds else None

    def lap(self, rows: int) -> None:
        """Ends a lap, in which `rows` rows were trained on, and begins the next."""
        now = time.monotonic()
        if self._lap_began is not None:
            self.stepping_rows += rows
            self.stepping_seconds += now - self._lap_began
        self._lap_began = now

    def restart(self) -> None:
        """Begins a lap; what has passed since the last one does not count."""
        self._lap_began = time.monotonic()

    def stop(self) -> None:
        """Begins no lap; what passes until the next does not count."""
        self._lap_began = None

    def update(self) -> None:
        """Brings `seconds` up to now."""
        self.seconds = time.monotonic() - self._began
