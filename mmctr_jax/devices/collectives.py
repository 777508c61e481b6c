"""What a compiled program says of itself."""

from __future__ import annotations

import math
import re

_COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(?:-start)?\(")
_ARRAY = re.compile(r"[a-z]+[0-9]+\[([0-9,]*)\]")


def collectives(text: str) -> list[tuple[str, int]]:
    """What devices exchange in a program (HLO text): kind, and how many numbers, of each collective operation."""
    found = []
    for line in text.splitlines():
        match = _COLLECTIVE.search(line)
        if match:
            shapes = [[int(n) for n in dims.split(",") if n] for dims in _ARRAY.findall(match[1])]
            found.append((match[2], sum(math.prod(shape) for shape in shapes)))
    return found
