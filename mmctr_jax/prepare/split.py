"""Which interactions are training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmctr_jax.errors import InputError
from mmctr_jax.prepare.log import Log
from mmctr_jax.prepare.options import Options

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)


@dataclass(frozen=True)
class Cuts:
    """Where test and validation begin: what the whole log says of the parts of each user's interactions."""

    test: float | int | None = None  # split time: clicks from then on
    valid: float | int | None = None
    test_users: int | None = None  # else: users whose keys go up to this one; None: no user
    valid_users: int | None = None


def find_cuts(times: np.ndarray, keys: np.ndarray, options: Options) -> Cuts:
    """The cuts of a log.

    Args:
      times: (n,) of its clicks, from `options.since` on.
      keys: (U,) uint64 of all users. A user hardly changes place in their order when others come or go, and so mostly
        stays in the same split.
    Raises: InputError if `options.since` leaves no click.
    """
    if options.split == "time":
        if not len(times):
            raise InputError("--since leaves no click; give an earlier time.")
        times = np.sort(times)
        shares = (1 - options.test, 1 - options.test - options.valid)
        return Cuts(*(times[min(round(share * len(times)), len(times) - 1)] for share in shares))
    keys = np.sort(keys)
    test, valid = (round(share * len(keys)) for share in (options.test, options.valid))
    if options.split == "user":
        valid += test
    return Cuts(None, None, *(int(keys[count - 1]) if count else None for count in (test, valid)))


def split_log(log: Log, candidates: np.ndarray, keys: np.ndarray, cuts: Cuts, options: Options) -> np.ndarray:
    """(R,) int8: TRAIN, VALID or TEST for each interaction, by `options.split`.

    user: a share of the users is test, another share validation, with all they did.
    time: the most recent share of the clicks (from `options.since` on) is test, the share before it validation; equal
      times stay together. (With more than a million clicks, the shares are those of a million drawn among them.)
    last: of a share of the users, the last candidate click is test; of a share, the last one that is not test is
      validation. Every other interaction belongs to the same part as the candidate click that follows it, or as the
      last one where none follows.

    Args:
      keys: (U,) uint64 of the users.
    """
    if options.split == "time":
        return np.select([log.time >= cuts.test, log.time >= cuts.valid], [TEST, VALID], TRAIN).astype(np.int8)
    in_test, in_valid = (_up_to(keys, last) for last in (cuts.test_users, cuts.valid_users))
    if options.split == "user":
        return np.select([in_test, in_valid], [TEST, VALID], TRAIN).astype(np.int8)[log.user]
    return _by_last_click(log, candidates, in_test, in_valid)


def _up_to(keys: np.ndarray, last: int | None) -> np.ndarray:
    return np.zeros(len(keys), bool) if last is None else keys <= np.uint64(last)


def _by_last_click(log: Log, candidates: np.ndarray, in_test: np.ndarray, in_valid: np.ndarray) -> np.ndarray:
    count = np.bincount(log.user[candidates], minlength=len(log.users))  # (U,) candidates
    before = np.cumsum(candidates) - candidates  # (R,) candidates before this row, all users'
    firsts = np.searchsorted(log.user, np.arange(len(log.users)))
    number = before - before[np.minimum(firsts, len(before) - 1)][log.user]  # of the candidate it is, or leads to
    number = np.minimum(number, count[log.user] - 1)

    last = count - 1
    has_test = in_test & (last >= 0)
    last_valid = last - has_test
    has_valid = in_valid & (last_valid >= 0)
    part = np.full(len(log.user), TRAIN, np.int8)
    part[has_valid[log.user] & (number == last_valid[log.user])] = VALID
    part[has_test[log.user] & (number == last[log.user])] = TEST
    return part
