"""Files and overrides → a checked `Config`, and back.

`load_config(path, overrides)` is the way in; `to_yaml(config)` writes the resolved configuration back.
"""

from __future__ import annotations

import copy
import datetime
import functools
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmctr_jax.config import yaml
from mmctr_jax.config.explain import explain
from mmctr_jax.config.schema import Config
from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded
from mmctr_jax.remote import local


def set_field(raw: dict, key: str, value: Any, where: str) -> None:
    """Puts a value at a dotted key of plain settings, making the sections that are missing.

    Raises: InputError, opening with `where`, if the key leads through something that is not a section.
    """
    *sections, last = key.split(".")
    for i, section in enumerate(sections):
        if raw.get(section) is None:
            raw[section] = {}
        raw = raw[section]
        if not isinstance(raw, dict):
            raise InputError(f"{where}: {'.'.join(sections[: i + 1])} is not a section; override it as a whole.")
    raw[last] = value


def _apply_override(raw: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"Override {override!r} is not of the form section.key=value, e.g. train.batch_size=256.")
    set_field(raw, key, yaml.parse(text, f"override {key}"), f"Override {key}")


def _as_text(value: Any) -> str:
    if isinstance(value, datetime.date):  # 2020-01-01 without quotes
        return str(value)
    raise TypeError(f"{type(value).__name__} value")


def parse_config(raw: Any, where: str = "config") -> Config:
    """A checked `Config` from plain data (what YAML gives). `where` opens the error message.

    Raises: InputError naming the first offending key.
    """
    if not isinstance(raw, dict):
        raise InputError(f"{where}: not a mapping of sections (data, features, model, train).")
    try:  # Through JSON, where strict typing still takes a list for a tuple and 1 for 1.0, but never "1" for 1.
        return Config.model_validate_json(json.dumps(raw, default=_as_text))
    except ValidationError as error:
        raise InputError(f"{where}: {explain(error, Config)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: cannot be read as plain settings ({error}).") from None


def _read_layers(path: Path, readers: tuple[Path, ...] = ()) -> list[tuple[Path, Any]]:
    """The plain data of a config file, and before it that of the file which its key `base` names, and so on.

    `base` is relative to the folder of the file that names it.
    """
    named = f", the base of {readers[-1]}," if readers else ""
    raw = yaml.read(path, f"Config {path}{named}")
    if raw is None:
        raw = {}
    if isinstance(raw, dict) and isinstance(raw.get("data"), dict):
        raw["data"] = {name: _found(value, path.parent) for name, value in raw["data"].items()}
    if not isinstance(raw, dict) or "base" not in raw:
        return [(path, raw)]
    base = raw.pop("base")
    if not isinstance(base, str) or "\0" in base:
        raise InputError(f"{path}: base must be the path of another config file, not {base!r}.")
    readers, below = (*readers, path), path.parent / expanded(base)
    if os.path.realpath(below) in [os.path.realpath(reader) for reader in readers]:
        raise InputError(f"{path}: base {base} leads back to itself.")
    layers = _read_layers(below, readers)
    if not isinstance(layers[-1][1], dict):
        raise InputError(f"{below}, the base of {path}: not a mapping of sections.")
    return [*layers, (path, raw)]


def _found(value: Any, folder: Path) -> Any:
    """A path of a config in `folder`, where there is something: seen from there, or as it is, from the current folder.

    Or beside the config, by its name: of a prepared folder that was moved. Whatever names nothing stays as it is.
    """
    if not isinstance(value, str) or not value or "\0" in value or "://" in value:
        return value
    whole = _expanded(value)
    seen_from_there, beside = folder / whole, folder / Path(whole).name
    if os.path.exists(seen_from_there) and not (os.path.exists(whole) and os.path.samefile(whole, seen_from_there)):
        return str(seen_from_there)
    return whole if os.path.exists(whole) or not os.path.exists(beside) else str(beside)


def _expanded(value: Any) -> Any:
    return str(expanded(value)) if isinstance(value, str) and value and "://" not in value else value


def _merged(base: Any, raw: Any) -> Any:
    """`raw`'s settings, and the base's where it has none; sections are merged, lists and values replaced."""
    if not (isinstance(base, dict) and isinstance(raw, dict)):
        return raw
    return base | {key: _merged(base.get(key), value) for key, value in raw.items()}


def read_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Any:
    """Plain data of a YAML file and its bases, with `section.key=value` overrides (values are YAML), not checked yet.

    Raises: InputError if a file cannot be read, or an override is none.
    """
    return _with_overrides([raw for _, raw in _read_layers(local(path))], overrides)


def _with_overrides(layers: list[Any], overrides: Sequence[str]) -> Any:
    raw = functools.reduce(_merged, copy.deepcopy(layers))
    if isinstance(raw, dict):
        for override in overrides:
            _apply_override(raw, override)
        if isinstance(raw.get("data"), dict):
            raw["data"] = {name: _expanded(value) for name, value in raw["data"].items()}
    return raw


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """`read_settings`, checked. Raises: InputError if a file cannot be read, or any key or value is wrong."""
    if isinstance(overrides, str):
        raise InputError(f"Overrides are a list, such as [{overrides!r}].")
    layers = _read_layers(local(path))
    raw = _with_overrides([raw for _, raw in layers], overrides)
    if problem := _problem(raw):
        raise InputError(f"{_guilty(layers, overrides, problem)}: {problem}")
    return parse_config(raw, str(path))


def _guilty(layers: list[tuple[Path, Any]], overrides: Sequence[str], problem: str) -> str:
    """Who says what is wrong: the override without which it is not there, or the last file that has the key."""
    files = [raw for _, raw in layers]
    for count in range(len(overrides), 0, -1):
        if _problem(_with_overrides(files, overrides[: count - 1])) != problem:
            return f"Override {overrides[count - 1]}"
    key = re.split("[ :]", problem)[0].split(".")
    return next((str(file) for file, raw in reversed(layers) if _has(raw, key)), str(layers[-1][0]))


def _has(raw: Any, key: list[str]) -> bool:
    if not key or not isinstance(raw, dict):
        return not isinstance(raw, dict)  # the rest of the key is within a list, or the value itself
    return key[0] in raw and (len(key) == 1 or _has(raw[key[0]], key[1:]))


def _problem(raw: Any) -> str | None:
    """What is wrong with settings; None: nothing."""
    try:
        parse_config(raw, "")
    except InputError as error:
        return str(error).removeprefix(": ")
    return None


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    return yaml.dump(json.loads(config.model_dump_json()))
