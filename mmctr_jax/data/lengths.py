"""The lengths that histories are padded to: the one policy, for training and for scoring.

A batch has one length, and each length is compiled once. Short batches cost less (see `models.live`), so there are
several lengths wherever padding changes no number.
"""

from __future__ import annotations

import numpy as np

from mmctr_jax.config import TrainConfig
from mmctr_jax.models import ModelSettings

_WORTH_COMPILING = 128  # batches × clicks of padding, in an epoch


def default_lengths(longest: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, 16, … below `longest`, and `longest`: what a batch's histories may be padded to."""
    steps = sorted({n << i for n in (1, 3) for i in range(longest.bit_length())})
    return (*(length for length in steps if length < longest), longest)


def scoring_lengths(model: ModelSettings, train: TrainConfig) -> tuple[int, ...]:
    """The lengths that histories may be padded to where nothing is learned, rising; the last is N."""
    N, buckets = model.max_history, train.length_buckets
    if model.sees_padding:
        return (N,)
    if buckets is None:
        return default_lengths(N)
    return (*(length for length in buckets if length < N), N)


def possible_training_lengths(model: ModelSettings, train: TrainConfig) -> tuple[int, ...]:
    """The same for training. With batch statistics, unless told otherwise, N alone: they are to be those of all
    lengths."""
    alone = model.has_batch_statistics and train.length_buckets is None
    return (model.max_history,) if alone else scoring_lengths(model, train)


def training_lengths(model: ModelSettings, train: TrainConfig, clicks: np.ndarray) -> tuple[int, ...]:
    """What the histories of a training's batches are padded to, rising; `clicks` (rows,) are those of each row.

    Of the default lengths those remain that save enough padding to be worth compiling. Lengths that
    `train.length_buckets` names all remain.
    """
    lengths = possible_training_lengths(model, train)
    if train.length_buckets is not None:
        return lengths
    needs = np.searchsorted(lengths[:-1], clicks)
    rows = np.bincount(needs, minlength=len(lengths))
    chosen, waiting = [], 0
    for length, longer, n in zip(lengths, lengths[1:], rows, strict=False):
        waiting += int(n)
        if waiting * (longer - length) >= _WORTH_COMPILING * train.batch_size:
            chosen.append(length)
            waiting = 0
    return (*chosen, lengths[-1])
