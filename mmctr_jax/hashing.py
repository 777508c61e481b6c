"""Values of any kind as ids of a bounded vocabulary: the same in training, scoring and serving."""

from __future__ import annotations

import hashlib


def hash_id(value: int | str, size: int) -> int:
    """An id from 1 to size − 1 by the value's hash: of an integer that of its decimal digits, so 7 and "7" are one.

    An empty text says nothing, as null does, and is 0.
    """
    if value == "":
        return 0
    digest = hashlib.blake2b(str(value).encode(), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % (size - 1)
