"""Files and overrides → a checked `Config`, and back.

`load_config(path, overrides)` is the way in; `to_yaml(config)` writes the resolved configuration back.
"""

from __future__ import annotations

import datetime
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmctr_jax.config import yaml
from mmctr_jax.config.explain import explain
from mmctr_jax.config.schema import Config
from mmctr_jax.errors import InputError
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


def _read_raw(path: Path, readers: tuple[Path, ...] = ()) -> Any:
    """A config file's plain data, laid over that of the file which its key `base` names, relative to its folder."""
    named = f", the base of {readers[-1]}," if readers else ""
    raw = yaml.read(path, f"Config {path}{named}")
    if raw is None:
        raw = {}
    if isinstance(raw, dict) and isinstance(raw.get("data"), dict):
        raw["data"] = {name: _found(value, path.parent) for name, value in raw["data"].items()}
    if not isinstance(raw, dict) or "base" not in raw:
        return raw
    base = raw.pop("base")
    if not isinstance(base, str) or "\0" in base:
        raise InputError(f"{path}: base must be the path of another config file, not {base!r}.")
    readers = (*readers, path)
    if os.path.realpath(path.parent / base) in [os.path.realpath(reader) for reader in readers]:
        raise InputError(f"{path}: base {base} leads back to itself.")
    below = _read_raw(path.parent / base, readers)
    if not isinstance(below, dict):
        raise InputError(f"{path.parent / base}, the base of {path}: not a mapping of sections.")
    return _merged(below, raw)


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
    """A path with the home folder for ~/ and variables of the environment for $NAME."""
    if not isinstance(value, str):
        return value
    return os.path.expandvars(os.path.expanduser(value) if value.startswith("~/") else value)


def _merged(base: Any, raw: Any) -> Any:
    """`raw`'s settings, and the base's where it has none; sections are merged, lists and values replaced."""
    if not (isinstance(base, dict) and isinstance(raw, dict)):
        return raw
    return base | {key: _merged(base.get(key), value) for key, value in raw.items()}


def read_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Any:
    """Plain data of a YAML file and its bases, with `section.key=value` overrides (values are YAML), not checked yet.

    Raises: InputError if a file cannot be read, or an override is none.
    """
    raw = _read_raw(local(path))
    if isinstance(raw, dict):
        for override in overrides:
            _apply_override(raw, override)
        if isinstance(raw.get("data"), dict):
            raw["data"] = {name: _expanded(value) for name, value in raw["data"].items()}
    return raw


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """`read_settings`, checked. Raises: InputError if a file cannot be read, or any key or value is wrong."""
    try:
        return parse_config(read_settings(path, overrides), str(path))
    except InputError as error:
        guilty = _first_wrong(path, overrides)
        if guilty is None or not str(error).startswith(f"{path}:"):  # the latter name the override already
            raise
        raise InputError(f"Override {guilty}:{str(error).removeprefix(f'{path}:')}") from None


def _first_wrong(path: str | Path, overrides: list[str] | tuple[str, ...]) -> str | None:
    """The override after which a config is wrong that was right before it; None if the file itself is wrong."""
    return next((overrides[at] for at in reversed(range(len(overrides))) if _is_right(path, overrides[:at])), None)


def _is_right(path: str | Path, overrides: list[str] | tuple[str, ...]) -> bool:
    try:
        parse_config(read_settings(path, overrides))
    except InputError:
        return False
    return True


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    return yaml.dump(json.loads(config.model_dump_json()))
