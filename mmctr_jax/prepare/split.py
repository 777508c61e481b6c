"""Which interactions are training, validation and test."""

from __future__ import annotations

import hashlib

import numpy as np

from mmctr_jax.errors import InputError
from mmctr_jax.prepare.log import Log
from mmctr_jax.prepare.options import Options

SPLITS = ("train", "valid", "test")
TRAIN, VALID, TEST = range(3)


def split_log(log: Log, candidates: np.ndarray, options: Options) -> np.ndarray:
    """(R,) int8: TRAIN, VALID or TEST for each interaction, by `options.split`.

    user: a share of the users is test, another share validation, with all they did.
    time: the most recent share of the clicks (from `options.since` on) is test, the share before it validation; equal
      times stay together.
    last: of a share of the users, the last candidate click is test; of a share, the last one that is not test is
      validation. Every other interaction belongs to the same part as the candidate click that follows it, or as the
      last one where none follows.

    Args:
      candidates: (R,) bool, the clicks that may become samples, see `samples.candidates`.
    """
    if options.split == "last":
        return _by_last_click(log, candidates, options)
    return {"user": _by_user, "time": _by_time}[options.split](log, options)


def ranks_of_users(log: Log, seed: int) -> np.ndarray:
    """(U,) int64: each user's rank in an order by a hash of seed and id.

    A user hardly changes place when others come or go, and so mostly stays in the same split.
    """
    hashes = [hashlib.blake2b(f"{seed}\t{user}".encode(), digest_size=8).digest() for user in log.users]
    order = np.argsort(np.array(hashes, dtype=">V8").view(">u8"), kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks


def _by_user(log: Log, options: Options) -> np.ndarray:
    ranks = ranks_of_users(log, options.seed)
    test = round(options.test * len(ranks))
    valid = round(options.valid * len(ranks))
    part = np.select([ranks < test, ranks < test + valid], [TEST, VALID], TRAIN)
    return part.astype(np.int8)[log.user]


def _by_time(log: Log, options: Options) -> np.ndarray:
    recent = log.click if options.since is None else log.click & (log.time >= options.since)
    times = np.sort(log.time[recent])
    if not len(times):
        raise InputError("--since leaves no click; give an earlier time.")
    cuts = [
        times[min(round(share * len(times)), len(times) - 1)]
        for share in (1 - options.test, 1 - options.test - options.valid)
    ]
    return np.select([log.time >= cuts[0], log.time >= cuts[1]], [TEST, VALID], TRAIN).astype(np.int8)


def _by_last_click(log: Log, candidates: np.ndarray, options: Options) -> np.ndarray:
    count = np.bincount(log.user[candidates], minlength=len(log.users))  # (U,) candidates
    before = np.cumsum(candidates) - candidates  # (R,) candidates before this row, all users'
    firsts = np.searchsorted(log.user, np.arange(len(log.users)))
    number = before - before[np.minimum(firsts, len(before) - 1)][log.user]  # of the candidate it is, or leads to
    number = np.minimum(number, count[log.user] - 1)

    ranks, users = ranks_of_users(log, options.seed), len(log.users)
    last = count - 1
    has_test = (ranks < round(options.test * users)) & (last >= 0)
    last_valid = last - has_test
    has_valid = (ranks < round(options.valid * users)) & (last_valid >= 0)
    part = np.full(len(log.user), TRAIN, np.int8)
    part[has_valid[log.user] & (number == last_valid[log.user])] = VALID
    part[has_test[log.user] & (number == last[log.user])] = TEST
    return part
