"""Writes docs/settings.md, the reference of all settings, from the schema: python docs/settings.py [--check]

Keys, types, bounds and defaults come from pydantic; what a setting means is the string literal under its field.
"""

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel

from mmctr_jax.config import Config

PAGE = Path(__file__).with_name("settings.md")
HEAD = """# Settings

<!-- Written by docs/settings.py from the schema. Do not edit: `make docs` writes it anew. -->

A config file states what differs from the defaults below; `section.key=value` on the command line overrides the file,
and `base: OTHER.yaml` takes another config as the starting point. An unknown key or an impossible value is refused with
one sentence that says what to change. `runs/NAME/config.yaml` holds every setting of a run as it was resolved.
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
UNBOUNDED = 2**20  # bounds from here on only guard against nonsense


def main() -> int:
    """Writes the page; with --check only says whether it is up to date."""
    page = HEAD + "\n".join(sections())
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(page)
    elif not PAGE.exists() or PAGE.read_text() != page:
        print("docs/settings.md is not what the schema says; run: make docs", file=sys.stderr)
        return 1
    return 0


def sections() -> Iterator[str]:
    """One piece of Markdown for each section of a config file, nested ones after the one that they are in."""
    schema = Config.model_json_schema()
    classes = {cls.__name__: cls for cls in subclasses(BaseModel)}
    for name, paths in places(schema).items():
        section, meanings = schema["$defs"][name], attribute_docstrings(classes[name])
        constant = [f", {key}: {value['const']}" for key, value in section["properties"].items() if "const" in value]
        yield f"\n## `{common(paths)}{''.join(constant[:1])}`\n"
        if "description" in section:
            yield section["description"] + "\n"
        yield "| key | type | default | meaning |\n|---|---|---|---|"
        for key, value in section["properties"].items():
            default = shown(value["default"]) if "default" in value else "required"
            meaning = meanings.get(key, "").replace("\n", " ").replace("|", "\\|")
            yield f"| `{key}` | {kind(value)} | {default} | {meaning} |"
    yield ""


def places(schema: dict) -> dict[str, list[str]]:
    """Each section class, by name → the paths in a config at which it may be."""
    found: dict[str, list[str]] = {}

    def visit(path: str, field: dict) -> None:
        inner = [name for name in referenced(field) if path not in found.setdefault(name, [])]
        for name in inner:
            found[name].append(path)
        for name in inner:
            for key, value in schema["$defs"][name]["properties"].items():
                visit(f"{path}.{key}", value)

    for key, value in schema["properties"].items():
        visit(key, value)
    return found


def common(paths: list[str]) -> str:
    """The path that all of `paths` begin with."""
    parts = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(part[0] for part in parts if len(set(part)) == 1)


def subclasses(cls: type) -> Iterator[type]:
    """All classes derived from `cls`, however far."""
    for derived in cls.__subclasses__():
        yield derived
        yield from subclasses(derived)


def referenced(field: dict) -> list[str]:
    """Names of the section classes that a value of this field may be, alone or in a list."""
    if "$ref" in field:
        return [field["$ref"].rsplit("/", 1)[1]]
    inside = [*field.get("anyOf", []), *field.get("oneOf", []), *field.get("allOf", [])]
    inside += [field["items"]] if isinstance(field.get("items"), dict) else []
    return [name for part in inside for name in referenced(part)]


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Field → the string literal under it, in the class or those that it is derived from."""
    meanings: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body
        for field, text in zip(body, body[1:], strict=False):
            literal = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and literal and isinstance(text.value.value, str):
                meanings[field.target.id] = inspect.cleandoc(text.value.value)
    return meanings


def kind(field: dict) -> str:
    """A field's type and constraints, e.g. `integer ≥ 1 or null`."""
    if referenced(field):
        return "list of sections" if "items" in field else "section"
    if "anyOf" in field:
        return " or ".join(kind(part) for part in field["anyOf"])
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {kind(field['items'])}" if isinstance(field.get("items"), dict) else "list"
    names = {"string": "text", "integer": "integer", "number": "number", "boolean": "true, false", "null": "null"}
    bounds = [f"{sign} {field[key]:g}" for key, sign in BOUNDS.items() if abs(field.get(key, 2**40)) < UNBOUNDED]
    return " ".join([names.get(field.get("type"), "any"), ", ".join(bounds)]).strip()


def shown(value: object) -> str:
    """A default as a config file would have it; sections have theirs in their own tables."""
    if isinstance(value, dict):
        return ""
    if isinstance(value, float) and 0 < abs(value) < 1e-3:
        return f"`{value:g}`".replace("e-0", "e-")
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6)
    return f"`{text.strip().removesuffix('...').strip()}`"


if __name__ == "__main__":
    sys.exit(main())
