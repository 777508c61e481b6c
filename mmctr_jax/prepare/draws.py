"""Random numbers by counter: what is drawn depends on seed, user and place, not on who else is prepared, or where."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, as in SplitMix64


def keys_of_users(users: Iterable[object], seed: int) -> np.ndarray:
    """(U,) uint64: a hash of seed and id."""
    hashes = [hashlib.blake2b(f"{seed}\t{user}".encode(), digest_size=8).digest() for user in users]
    return np.array(hashes, dtype=">V8").view(">u8").astype(np.uint64)


def mixed(keys: np.ndarray, number: int | np.ndarray) -> np.ndarray:
    """The keys with a number mixed in: other, independent ones for each number (Steele et al., SplitMix64).

    Args:
      keys: uint64.
      number: from 0; an array must broadcast with `keys`.
    """
    x = keys ^ ((np.atleast_1d(number).astype(np.uint64) + np.uint64(1)) * np.uint64(_STEP))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniform(keys: np.ndarray) -> np.ndarray:
    """float64 in [0, 1), one for each key."""
    return (keys >> np.uint64(11)) * 2.0**-53
