"""What a tracker is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mmctr_jax.files import write_atomically


@dataclass(frozen=True)
class TrackedRun:
    """A run directory and its configuration, as trackers show them."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, str]:
        """`section.key` → the setting, as JSON unless it is text."""
        return dict(_flat("", self.config))

    def kept_id(self, tracker: str) -> str | None:
        """By what the tracker knows this run, if it was kept: a resumed run goes on with its records there."""
        return self._ids().get(tracker)

    def keep_id(self, tracker: str, run_id: str) -> None:
        """Keeps it."""
        write_atomically(self._file, json.dumps(self._ids() | {tracker: run_id}) + "\n")

    @property
    def _file(self) -> Path:
        return self.folder / "trackers.json"

    def _ids(self) -> dict[str, str]:
        return json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}


def _flat(before: str, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found += _flat(f"{before}{name}.", value)
        else:
            found.append((before + name, value if isinstance(value, str) else json.dumps(value, default=str)))
    return found


class Tracker(Protocol):
    """The records of one run go there, from `open` to `close`."""

    def open(self, step: int) -> None:
        """Begins, or goes on after this step."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """`kind/name` → value at this step."""

    def flush(self) -> None:
        """What was added is to be seen from now on."""

    def close(self, failed: bool) -> None:
        """Ends it."""
