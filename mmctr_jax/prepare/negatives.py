"""Negatives: items that a user never clicked, drawn by popularity."""

from __future__ import annotations

import numpy as np

_ATTEMPTS = 100  # for all samples at once; one that is still incomplete then draws from a list of what is left


def user_item_keys(user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """int64: a number for each pair of user and item, user by user. items: how many items there are in all."""
    return user.astype(np.int64) * items + item


class NegativeSampler:
    """Draws items by popularity^alpha among those clicked in training, never one that the user clicks at any time.

    What is drawn for a sample depends on seed, stream and the sample's place in the chunk, not on other samples.
    """

    def __init__(self, clicks: np.ndarray, user: np.ndarray, item: np.ndarray, alpha: float, seed: int):
        """Prepares to draw.

        Args:
          clicks: (V,) clicks in training, by item: the popularity.
          user, item: (C,) all clicks, at any time.
        """
        self._share = np.where(clicks > 0, clicks.astype(np.float64) ** alpha, 0.0)
        self._cumulated = np.cumsum(self._share)
        self._items = len(clicks)
        keys = np.unique(user_item_keys(user, item, self._items))
        self._clicked = np.append(keys, np.iinfo(np.int64).max)  # whatever is looked for, something is not below it
        self._seed = seed

    def draw(self, user: np.ndarray, count: int, stream: tuple[int, int]) -> np.ndarray:
        """(samples, count) int64 items, distinct within a row; -1 where fewer than `count` are left to draw for a user.

        Args:
          user: (samples,).
          stream: two numbers that differ from call to call, such as split and chunk.
        """
        drawn = np.full((len(user), count), -1, np.int64)
        open_rows = np.arange(len(user))
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([self._seed, *stream, attempt]).random(drawn.shape)
            candidates = np.searchsorted(self._cumulated, random[open_rows] * self._cumulated[-1], side="right")
            free = ~self._is_clicked(user[open_rows], candidates)
            found = drawn[open_rows]
            for slot in range(count):
                candidate = candidates[:, slot]
                fits = (found[:, slot] < 0) & free[:, slot] & (found != candidate[:, None]).all(axis=1)
                found[fits, slot] = candidate[fits]
            drawn[open_rows] = found
            open_rows = open_rows[(found < 0).any(axis=1)]
            if not len(open_rows):
                return drawn
        for row in open_rows:
            random = np.random.default_rng([self._seed, *stream, _ATTEMPTS + int(row)])
            self._fill(drawn[row], int(user[row]), random)
        return drawn

    def _fill(self, drawn: np.ndarray, user: int, random: np.random.Generator) -> None:
        """Replaces each -1 in `drawn`, in place, by an item that is left to draw, if there is one."""
        clicked = self._clicked[slice(*np.searchsorted(self._clicked, [user * self._items, (user + 1) * self._items]))]
        share = self._share.copy()
        share[clicked - user * self._items] = 0
        share[drawn[drawn >= 0]] = 0
        missing = np.flatnonzero(drawn < 0)[: np.count_nonzero(share)]
        if len(missing):
            drawn[missing] = random.choice(len(share), len(missing), replace=False, p=share / share.sum())

    def _is_clicked(self, user: np.ndarray, items: np.ndarray) -> np.ndarray:
        keys = user_item_keys(user[:, None], items, self._items)
        return self._clicked[np.searchsorted(self._clicked, keys)] == keys
