"""What a search varies: config fields, each with a list or a range of values, all of which the config accepts.

train.learning_rate: [1e-3, 5e-4, 1e-4]               # a list: one of these values
model.dcn.deep: [[256, 128], [512, 256, 128]]         # of any kind
train.clip_norm: {low: 0.1, high: 10, log: true}      # a range; of whole numbers where both ends are
"""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmctr_jax.config import Config, parse_config, read_settings, set_field, yaml
from mmctr_jax.config.differences import Marker, marked_fields
from mmctr_jax.errors import InputError

_MOST_COMBINATIONS = 10_000  # so many are checked one by one; of more, only each value by itself
_LONG_RANGE = 100  # whole numbers; of a range as long as this, only the ends are checked


@dataclass(frozen=True)
class Choice:
    """One of these values."""

    values: tuple[Any, ...]

    @property
    def examples(self) -> tuple[Any, ...]:
        """The values that checks try: all of them."""
        return self.values


@dataclass(frozen=True)
class Range:
    """Any number from `low` to `high`, both included; whole numbers where both are. log: evenly on a log scale."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether it has whole numbers alone."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def examples(self) -> tuple[Any, ...]:
        """The values that checks try: the whole numbers of a short range, else both ends."""
        if self.whole and self.high - self.low < _LONG_RANGE:
            return tuple(range(self.low, self.high + 1))
        return self.low, self.high


def label(value: Any) -> str:
    """A value in one line, as a config file would have it."""
    return value if isinstance(value, str) else json.dumps(value)


@dataclass(frozen=True)
class Space:
    """The base config and the fields that are varied around it."""

    settings: dict[str, Any]  # the base's, as plain data
    fields: dict[str, Choice | Range]  # by dotted name
    where: str  # the space file, for messages

    def config(self, values: dict[str, Any]) -> Config:
        """The base with these values of fields. Raises: InputError if the config refuses them."""
        settings = copy.deepcopy(self.settings)
        where = f"{self.where}: with " + ", ".join(f"{name} {label(value)}" for name, value in values.items())
        for name, value in values.items():
            set_field(settings, name, copy.deepcopy(value), where)
        return parse_config(settings, where)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Every combination of the fields' examples, as field → value."""
        for values in itertools.product(*(field.examples for field in self.fields.values())):
            yield dict(zip(self.fields, values, strict=True))

    @property
    def size(self) -> int:
        """The number of combinations."""
        return math.prod(len(field.examples) for field in self.fields.values())

    def check_each_value(self) -> None:
        """Raises: InputError if the config refuses a value of a field together with the base's other settings."""
        for name, field in self.fields.items():
            for value in field.examples:
                self.config({name: value})

    def check(self) -> None:
        """Raises: InputError if the config refuses a combination, or a value by itself where they are very many."""
        if self.size > _MOST_COMBINATIONS:
            self.check_each_value()
            return
        for values in self.combinations():
            self.config(values)


def read_space(base: Path, overrides: list[str], path: Path) -> Space:
    """Reads the base config, with overrides, and the space file. Raises: InputError if either is wrong."""
    settings = read_settings(base, overrides)
    parse_config(settings, str(base))
    raw = yaml.read(path, f"Space {path}")
    if not isinstance(raw, dict) or not raw:
        raise InputError(f"{path}: not a mapping of config fields, such as train.learning_rate: [1e-3, 1e-4].")
    fields, fixed = {}, marked_fields(Config, Marker.FIXED_IN_SEARCH)
    for name, values in raw.items():
        if not isinstance(name, str):
            raise InputError(f"{path}: {name!r} is not the name of a config field; write section.key.")
        if any(f"{same}.".startswith(f"{name}.") for same in fixed):
            raise InputError(f"{path}: {name} cannot be varied: what is scored on other rows cannot be compared.")
        fields[name] = _field(values, f"{path}: {name}")
    for one, other in itertools.permutations(fields, 2):
        if other.startswith(f"{one}."):
            raise InputError(f"{path}: {other} is a part of {one}; vary one of the two.")
    return Space(settings, fields, str(path))


def _field(raw: Any, where: str) -> Choice | Range:
    if isinstance(raw, list):
        if not raw:
            raise InputError(f"{where} has no values; list some.")
        labels = [label(value) for value in _plain(raw, where)]
        twice = next((text for text in labels if labels.count(text) > 1), None)
        if twice:
            raise InputError(f"{where} lists {twice} twice; list it once.")
        return Choice(tuple(raw))
    if not isinstance(raw, dict) or not {"low", "high"} <= set(raw) <= {"low", "high", "log"}:
        raise InputError(f"{where} is neither a list of values nor a range, {{low: …, high: …, log: true|false}}.")
    low, high, log = raw["low"], raw["high"], raw.get("log", False)
    numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 2**63 for x in (low, high))
    if not numbers or not low < high or not isinstance(log, bool) or (log and low <= 0):
        raise InputError(f"{where}: low must be a number below high, above 0 where log is true; log true or false.")
    return Range(low, high, log)


def _plain(values: list[Any], where: str) -> list[Any]:
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"{where} has a value that is neither text, number, list nor mapping; correct it.") from None
    return values
