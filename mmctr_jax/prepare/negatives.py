"""Negatives: items that a user never clicked, drawn by popularity."""

from __future__ import annotations

import numpy as np

from mmctr_jax.prepare.draws import mixed, uniform

_ATTEMPTS = 20  # for all samples at once; one that is still incomplete then draws from a list of what is left
_TRIES = 100  # to draw from that list something that the sample does not have yet


def user_item_keys(user: np.ndarray, item: np.ndarray, items: int) -> np.ndarray:
    """int64: a number for each pair of user and item, user by user. items: how many items there are in all."""
    return user.astype(np.int64) * items + item


class NegativeSampler:
    """Draws items by popularity^alpha among those clicked in training, never one that the user clicks at any time.

    What is drawn for a sample depends on its key, the popularity and the user's clicks, not on other samples.
    """

    def __init__(self, clicks: np.ndarray, user: np.ndarray, item: np.ndarray, alpha: float):
        """Prepares to draw.

        Args:
          clicks: (V,) clicks in training, by item: the popularity.
          user, item: (C,) all clicks of the users that are drawn for, at any time.
        """
        self._share = np.where(clicks > 0, clicks.astype(np.float64) ** alpha, 0.0)
        self._cumulated = np.cumsum(self._share)
        self._items = len(clicks)
        keys = np.unique(user_item_keys(user, item, self._items))
        self._clicked = np.append(keys, np.iinfo(np.int64).max)  # whatever is looked for, something is not below it

    def draw(self, user: np.ndarray, count: int, keys: np.ndarray) -> np.ndarray:
        """(samples, count) int64 items, distinct within a row; -1 where fewer than `count` are left to draw for a user.

        Args:
          user: (samples,).
          keys: (samples,) uint64, see `draws`.
        """
        drawn = np.full((len(user), count), -1, np.int64)
        open_rows = np.arange(len(user))
        slots = np.arange(count)
        for attempt in range(_ATTEMPTS):
            random = uniform(mixed(keys[open_rows, None], attempt * count + slots))
            candidates = np.searchsorted(self._cumulated, random * self._cumulated[-1], side="right")
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
        by_user = np.argsort(user[open_rows], kind="stable")
        free = None
        for row in open_rows[by_user]:
            if free is None or free[0] != user[row]:
                free = (user[row], *self._free(int(user[row])))
            _fill(drawn[row], *free[1:], np.random.default_rng([_ATTEMPTS, int(keys[row])]))
        return drawn

    def _free(self, user: int) -> tuple[np.ndarray, np.ndarray]:
        """(n,) the items that this user never clicked, and (n,) their shares, added up."""
        clicked = self._clicked[slice(*np.searchsorted(self._clicked, [user * self._items, (user + 1) * self._items]))]
        share = self._share.copy()
        share[clicked - user * self._items] = 0
        items = np.flatnonzero(share)
        return items, np.cumsum(share[items])

    def _is_clicked(self, user: np.ndarray, items: np.ndarray) -> np.ndarray:
        keys = user_item_keys(user[:, None], items, self._items)
        return self._clicked[np.searchsorted(self._clicked, keys)] == keys


def _fill(drawn: np.ndarray, items: np.ndarray, cumulated: np.ndarray, random: np.random.Generator) -> None:
    """Replaces each -1 in `drawn`, in place, by an item that is left to draw, if there is one.

    The time does not grow with the number of items: a user who clicked nearly everything has as many rows.

    Args:
      items, cumulated: (n,) what may be drawn, and its shares, added up; what stands in `drawn` may be among it.
    """
    for slot in np.flatnonzero(drawn < 0)[: len(items) - np.isin(drawn, items).sum()]:
        for _ in range(_TRIES):
            item = items[min(np.searchsorted(cumulated, random.random() * cumulated[-1], side="right"), len(items) - 1)]
            if item not in drawn:
                break
        else:  # a few items have nearly all of the popularity
            left = ~np.isin(items, drawn)
            share = np.diff(cumulated, prepend=0)[left]
            item = random.choice(items[left], p=share / share.sum()) if share.sum() > 0 else items[left][0]
        drawn[slot] = item
