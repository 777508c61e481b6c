"""Values of any kind as ids of a bounded vocabulary: the same in training, scoring and serving."""

from __future__ import annotations

import hashlib
import re

_WHOLE = re.compile(r"(-?\d+)\.0+")
_WORDS = {"True": "true", "TRUE": "true", "False": "false", "FALSE": "false"}


def hash_id(value: int | str, size: int) -> int:
    """An id from 1 to size − 1 by the value's hash: of an integer that of its decimal digits, so 7 and "7" are one.

    An empty text says nothing, as null does, and is 0.
    """
    if value == "":
        return 0
    digest = hashlib.blake2b(as_hashed(str(value)).encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (size - 1)


def as_hashed(value: str) -> str:
    """What a value is hashed as, however programs write it: 7 for 7.0 (pandas, beside nulls), and true for True."""
    whole = _WHOLE.fullmatch(value)
    return whole[1] if whole else _WORDS.get(value, value)
