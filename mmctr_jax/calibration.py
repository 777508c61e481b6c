"""Placeholder: calibrations that predict.py stores in a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def read(directory: Path, step: int) -> Any | None:
    """The calibration of the checkpoint at `step`; None where there is none."""
    return None
