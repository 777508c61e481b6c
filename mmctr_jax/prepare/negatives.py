"""Items that a user was not seen to click, drawn by popularity."""

from __future__ import annotations

import numpy as np

_ATTEMPTS = 100  # vectorised; whoever still misses a negative then gets one from the list of what is left


def user_item_keys(user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """int64 numbers, one for each pair of a user and one of `items` items; a user's lie together."""
    return user.astype(np.int64) * items + item


class NegativeSampler:
    """Draws items by popularity^alpha among those clicked in training, never one that the user clicks at any time.

    Draws are a function of seed, stream, chunk and place in the chunk: what is drawn for one sample does not depend on
    others. Popularity is of training clicks alone.
    """

    def __init__(self, clicks: np.ndarray, user: np.ndarray, item: np.ndarray, alpha: float, seed: int):
        """clicks: (V,) clicks in training by item. user, item: (C,) all clicks, at any time."""
        self._share = np.where(clicks > 0, clicks.astype(np.float64) ** alpha, 0.0)
        self._cumulated = np.cumsum(self._share)
        self._items = len(clicks)
        keys = np.unique(user_item_keys(user, item, self._items))
        self._clicked = np.append(keys, np.iinfo(np.int64).max)  # whatever is looked for, something is not below it
        self._seed = seed

    def draw(self, user: np.ndarray, count: int, stream: tuple[int, int]) -> np.ndarray:
        """(samples, count) items, distinct within a row; -1 where the user leaves fewer than `count` to draw.

        user: (samples,). stream: two numbers that differ from draw to draw, such as split and chunk.
        """
        drawn = np.full((len(user), count), -1, np.int64)
        open_rows = np.arange(len(user))
        for attempt in range(_ATTEMPTS):
            random = np.random.default_rng([self._seed, *stream, attempt]).random(drawn.shape)
            candidates = np.searchsorted(self._cumulated, random[open_rows] * self._cumulated[-1], side="right")
            free = ~self._is_clicked(user[open_rows], candidates)
            mine = drawn[open_rows]
            for slot in range(count):
                candidate = candidates[:, slot]
                fits = (mine[:, slot] < 0) & free[:, slot] & (mine != candidate[:, None]).all(axis=1)
                mine[fits, slot] = candidate[fits]
            drawn[open_rows] = mine
            open_rows = open_rows[(mine < 0).any(axis=1)]
            if not len(open_rows):
                return drawn
        for row in open_rows:
            random = np.random.default_rng([self._seed, *stream, _ATTEMPTS + int(row)])
            self._fill(drawn[row], int(user[row]), random)
        return drawn

    def _fill(self, drawn: np.ndarray, user: int, random: np.random.Generator) -> None:
        """Replaces the -1 in `drawn` from the items that are left, in place."""
        mine = self._clicked[slice(*np.searchsorted(self._clicked, [user * self._items, (user + 1) * self._items]))]
        share = self._share.copy()
        share[mine - user * self._items] = 0
        share[drawn[drawn >= 0]] = 0
        missing = np.flatnonzero(drawn < 0)[: np.count_nonzero(share)]
        if len(missing):
            drawn[missing] = random.choice(len(share), len(missing), replace=False, p=share / share.sum())

    def _is_clicked(self, user: np.ndarray, items: np.ndarray) -> np.ndarray:
        keys = user_item_keys(user[:, None], items, self._items)
        return self._clicked[np.searchsorted(self._clicked, keys)] == keys
