"""YAML 1.2 text ↔ plain data, by ruamel.yaml: plain types only, no key twice, nothing that unfolds without end."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import Node, ScalarNode, SequenceNode

from mmctr_jax.errors import InputError

_LONGEST = 2**18  # characters: far more than a config of a thousand features, and read in seconds


class _TooLong(YAMLError):
    problem, problem_mark = "with its aliases written out it is too long", None


class _Composer(Composer):
    """Refuses aliases (`*name`) that stand for more than any memory holds; a few lines can."""

    def get_single_node(self) -> Any:
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > _LONGEST:
            raise _TooLong
        return node


def _written_out(node: Node, lengths: dict[int, int]) -> int:
    """Length of a node with every alias written out; beyond the limit if it holds itself."""
    if id(node) not in lengths:
        lengths[id(node)] = _LONGEST + 1  # until it is known
        if isinstance(node, ScalarNode):
            lengths[id(node)] = 1 + len(node.value.encode())
        else:
            children = node.value if isinstance(node, SequenceNode) else [n for pair in node.value for n in pair]
            lengths[id(node)] = 1 + sum(_written_out(child, lengths) for child in children)
    return lengths[id(node)]


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.width = 120
    return yaml


def parse(text: str, where: str) -> Any:
    """Plain data of YAML text. Raises: InputError, opening with `where` and naming the line."""
    try:
        return _yaml().load(text)
    except Exception as error:  # of many kinds, where a tag does not suit its value
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0] or type(error).__name__
        if isinstance(error, DuplicateKeyError):
            key = re.match(r'found duplicate key "(.*?)" with', problem, re.DOTALL)
            problem = f"key {key[1]!r} is given twice" if key else problem
        raise InputError(f"{where}{at}: not valid YAML: {problem}.") from None


def read(path: Path, what: str) -> Any:
    """A YAML file's plain data. `what`, such as "Config a.yaml", opens the message where it cannot be read.

    Raises: InputError if it cannot be read, is no YAML, or is far longer than anything a user writes.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{what} cannot be read: {reason}.") from None
    if len(text) > _LONGEST:
        raise InputError(f"{what} is longer than {_LONGEST:,} characters; name another file.")
    return parse(text, str(path))


def dump(data: Any) -> str:
    """Plain data as YAML text that `parse` reads back to the same."""
    stream = io.StringIO()
    _yaml().dump(data, stream)
    return stream.getvalue()
