"""How a training ended: what summary.json holds."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any


class StopReason(Enum):
    """Why a training ended. The values are the texts of summary.json, with the number that some of them name."""

    EPOCHS_DONE = "{} epochs done"
    PATIENCE_EXHAUSTED = "no better validation in {} validations"
    PRUNED = "pruned"
    """A search found the run not worth going on with."""
    INTERRUPTED = "interrupted"
    """On request, with everything saved: `--resume` continues."""


@dataclass(frozen=True)
class Summary:
    """The result of a training, as it stood when training ended."""

    stopped: StopReason
    limit: int | None
    """The epochs or validations that `stopped` names; None where it names no number."""
    steps: int
    epochs: float
    best_step: int | None
    """The step of the best validation, by `train.monitor`; None before the first validation."""
    validation: dict[str, float | None]
    """The metrics at `best_step`, by name; empty before the first validation."""
    samples_per_second: float | None
    """None where no step was timed."""
    seconds: float
    """At work, all sessions together."""
    parameters: int

    @property
    def stopped_because(self) -> str:
        """`stopped` in words, such as "5 epochs done"."""
        return self.stopped.value.format(self.limit)

    def to_json(self) -> dict[str, Any]:
        """Plain data for summary.json; `stopped` is in words."""
        values = asdict(self) | {"stopped": self.stopped_because}
        del values["limit"]
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Summary:
        """The inverse of `to_json`. Raises: ValueError, KeyError or TypeError for what is no summary."""
        stopped = values["stopped"].replace("validation AUC", "validation")  # as earlier versions wrote it
        for reason in StopReason:
            match = re.fullmatch(reason.value.replace("{}", r"(\d+)"), stopped)
            if match:
                limit = int(match[1]) if match.groups() else None
                return cls(**values | {"stopped": reason, "limit": limit})
        raise ValueError(f"{values['stopped']!r} is no reason for a training to stop")
