"""What pydantic says of a wrong configuration → one sentence that names the key and what to do."""

from __future__ import annotations

import difflib
import json
from typing import Any, get_args

from pydantic import BaseModel, ValidationError


def explain(error: ValidationError, root: type[BaseModel]) -> str:
    """The first offending key of a configuration of type `root`, in one sentence."""
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains a missing key better
    if first["type"] == "json_invalid":  # e.g. sections hundreds deep
        return f"cannot be read as plain settings ({first['ctx']['error']})."
    keys, known, classes = _resolve(first["loc"], root)
    key = ".".join(str(k) for k in keys)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
        hint = (
            f"did you mean {'.'.join(map(str, [*keys[:-1], near[0]]))}?" if near else f"known are {', '.join(known)}."
        )
        return f"{key} is not a known key; {hint}"
    tag = next((name for c in classes for name in _TAGS if _literals(c, name)), "name")
    if first["type"] == "union_tag_invalid":
        return f"{key}.{tag} {first['ctx']['tag']!r} is not known; known are {first['ctx']['expected_tags']}."
    if first["type"] == "union_tag_not_found":
        return f"{key}.{tag} is missing; give it a value."
    if first["type"] == "missing":
        return f"{key} is missing; give it a value."
    if first["type"] == "value_error":  # raised by our own checks, which name their keys
        return f"{first['msg'].removeprefix('Value error, ')}."
    message = first["msg"][0].lower() + first["msg"][1:]
    value = json.dumps(first["input"], default=str)
    return f"{key}: {message}, not {value if len(value) <= 60 else value[:57] + '...'}."


_TAGS = ("name", "kind", "optimizer")
"""Fields that tell a class from the others that a section may be of."""


def _resolve(location: tuple, root: type[BaseModel]) -> tuple[list, list[str], list[type[BaseModel]]]:
    """A pydantic error's location as our keys, the names known in the section that holds the last of them, and the
    classes that this one may be of.

    Where a section is one of several classes, pydantic's location has the chosen one's tag, which is no key.
    """
    keys: list = []
    candidates: list[type[BaseModel]] = [root]  # classes that the section may be of
    known: list[str] = []
    for part in location:
        tagged = [c for c in candidates if part in _tags(c)]
        if len(candidates) > 1 and tagged:
            candidates = tagged
            continue
        keys.append(part)
        if isinstance(part, int):
            continue
        known = list(dict.fromkeys(name for c in candidates for name in c.model_fields))
        fields = [c.model_fields[part] for c in candidates if part in c.model_fields]
        candidates = [cls for field in fields for cls in _classes(field.annotation)]
    return keys, known, candidates


def _tags(section: type[BaseModel]) -> tuple:
    """The values of the field that tells a class from the others it may stand for."""
    return tuple(value for name in _TAGS for value in _literals(section, name))


def _literals(section: type[BaseModel], name: str) -> tuple:
    """The texts that a field may be, if it may be nothing else."""
    values = get_args(section.model_fields[name].annotation) if name in section.model_fields else ()
    return values if all(isinstance(value, str) for value in values) else ()


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes within an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [cls for part in get_args(annotation) for cls in _classes(part)]
