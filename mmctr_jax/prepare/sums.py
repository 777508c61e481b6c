"""Things that are found of parts, and added up to be those of the whole."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


class Sum:
    """Fields that are added up one by one: counts, arrays, samples; of dictionaries, the values of each key."""

    def __add__(self, other: Any) -> Any:
        return type(self)(*(_added(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)))


def _added(one: Any, other: Any) -> Any:
    if one is None:
        return other
    if isinstance(one, dict):
        return {
            key: _added(one[key], other[key]) if key in one and key in other else (one | other)[key]
            for key in dict.fromkeys([*one, *other])
        }
    return one + other
