"""Rows → batches, through Grain.

An element of the Grain source is a whole batch, gathered at once from the ragged arrays. Epochs follow each other in
one long index, so the loader's position is that index, the number of batches taken, and nothing else: it is the same on
any number of hosts, and resuming there gives the batches that would have come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grain
import numpy as np

from mmctr_jax.data.cache import Split
from mmctr_jax.data.share import WHOLE, Share
from mmctr_jax.features import Features

Batch = dict[str, Any]
"""history (B, L) int32, zeros on the left, L being what the batch needs; item (B,) int32; side: by name, the values
(B, …) of each side feature; clicks: by name, the values (B, L) of each click feature, 0 at padding; label, weight
(B,) float32; labels: by name, (B,) float32 of each label besides `label`.

Rows of weight 0 fill the last batch up; they count in no loss, gradient or metric."""


def history_lengths(split: Split) -> np.ndarray:
    """(rows,) clicks of each row."""
    return np.diff(split.history_offsets)


def pad_histories(split: Split, rows: np.ndarray, length: int) -> np.ndarray:
    """(rows, length) int32: each row's most recent clicks at the right, zeros on the left."""
    return _padded(split, split.history_values, rows, length)


def _padded(split: Split, values: np.ndarray, rows: np.ndarray, length: int) -> np.ndarray:
    """(rows, length): the values of each row's most recent clicks. values: (clicks,) of any kind."""
    ends = split.history_offsets[rows + 1]
    starts = np.maximum(split.history_offsets[rows], ends - length)
    at = ends[:, None] + np.arange(-length, 0)
    real = at >= starts[:, None]
    padded = np.zeros(at.shape, values.dtype)
    padded[real] = values[at[real]]
    return padded


def empty_batch(features: Features, rows: int, length: int) -> Batch:
    """A batch of padding, (rows,) of `length` clicks each, without labels: for parameters, and for items alone."""
    return {
        "history": np.zeros((rows, length), np.int32),
        "item": np.zeros(rows, np.int32),
        "side": {f.name: f.padding(rows) for f in features.side},
        "clicks": {f.name: np.zeros((rows, length), f.padding(0).dtype) for f in features.clicks},
        "weight": np.ones(rows, np.float32),
    }


def longest_first(split: Split) -> np.ndarray:
    """(rows,) row numbers, from the longest history to the shortest; equal ones in file order."""
    return np.argsort(-history_lengths(split), kind="stable")


def _epoch_order(split: Split, batch_size: int, lengths: tuple[int, ...], seed: int, epoch: int) -> np.ndarray:
    """(rows,) row numbers of an epoch's batches: a function of these arguments alone.

    Rows are shuffled. With several lengths those of all full batches are then grouped by the length that they need,
    cut into batches, and the batches shuffled: each holds random rows of one length, but for those where two lengths
    meet. The last, partial batch is random rows of any.
    """
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    order = np.arange(split.rows)
    rng.shuffle(order)
    full = split.rows // batch_size * batch_size
    if len(lengths) > 1:
        needs = np.searchsorted(lengths[:-1], history_lengths(split)[order[:full]]).astype(np.uint16)
        grouped = order[:full][np.argsort(needs, kind="stable")].reshape(-1, batch_size)
        order[:full] = grouped[rng.permutation(len(grouped))].ravel()
    return order


class _BatchSource(grain.sources.RandomAccessDataSource):
    """Element i is batch i % batches_per_epoch of epoch i // batches_per_epoch.

    order: epoch → row numbers. lengths: what a batch's histories may be padded to, ascending; the longest clicks of all
    its processes' rows decide.
    """

    def __init__(
        self,
        split: Split,
        order: Callable[[int], np.ndarray],
        *,
        batch_size: int,
        lengths: tuple[int, ...],
        share: Share,
        epochs: int = 1,
    ):
        self.split, self.order, self.batch_size, self.share = split, order, batch_size, share
        self.lengths, self.history_lengths = lengths, history_lengths(split)
        self.batches_per_epoch, self.epochs = batches_per_epoch(split.rows, batch_size), epochs
        self._lock = threading.Lock()  # Grain reads from several threads
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.batches_per_epoch * self.epochs

    def _order(self, epoch: int) -> np.ndarray:
        with self._lock:
            if epoch not in self._orders:
                # Around the end of an epoch threads ask for both; older ones are not needed again.
                kept = {e: order for e, order in self._orders.items() if e == epoch - 1}
                self._orders = kept | {epoch: self.order(epoch)}
            return self._orders[epoch]

    def __getitem__(self, index) -> Batch:
        epoch, number = divmod(int(index), self.batches_per_epoch)
        rows = self._order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        length = self.lengths[np.searchsorted(self.lengths[:-1], self.history_lengths[rows].max())]
        share = self.share
        size = -(-self.batch_size // share.devices) * share.devices // share.count
        return self._gather(rows[share.index * size : (share.index + 1) * size], size, length)

    def _gather(self, rows: np.ndarray, size: int, length: int) -> Batch:
        split, n = self.split, len(rows)
        batch = {
            "history": np.zeros((size, length), np.int32),
            "item": np.zeros(size, np.int32),
            "clicks": {name: np.zeros((size, length), x.dtype) for name, x in split.clicks.items()},
            "side": {name: np.zeros((size, *x.shape[1:]), x.dtype) for name, x in split.side.items()},
            "label": np.zeros(size, np.float32),
            "labels": {name: np.zeros(size, np.float32) for name in split.labels},
            "weight": np.zeros(size, np.float32),
        }
        batch["history"][:n] = pad_histories(split, rows, length)
        for name, values in split.clicks.items():
            batch["clicks"][name][:n] = _padded(split, values, rows, length)
        batch["item"][:n] = split.item[rows]
        for name, values in split.side.items():
            batch["side"][name][:n] = values[rows]
        if split.label is not None:
            batch["label"][:n] = split.label[rows]
        for name, values in split.labels.items():
            batch["labels"][name][:n] = values[rows]
        batch["weight"][:n] = 1.0 if split.weight is None else split.weight[rows]
        return batch


# Two reader threads keep a few batches ready; more would only fight over the interpreter lock (the arrays are mapped).
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


def train_batches(
    split: Split,
    *,
    batch_size: int,
    lengths: tuple[int, ...],
    seed: int,
    epochs: int,
    start: int = 0,
    share: Share = WHOLE,
) -> Iterator[Batch]:
    """Batches of `epochs` epochs from global batch index `start` on, in `_epoch_order`; the last batch of an epoch is
    filled up with rows of weight 0. `batch_size` is global; `lengths` are those of padded histories, ascending."""
    order = partial(_epoch_order, split, batch_size, lengths, seed)
    source = _BatchSource(split, order, batch_size=batch_size, lengths=lengths, share=share, epochs=epochs)
    return iter(grain.MapDataset.source(source)[start:].to_iter_dataset(_READ))


def eval_batches(
    split: Split, order: np.ndarray, *, batch_size: int, lengths: tuple[int, ...], share: Share = WHOLE
) -> Iterator[Batch]:
    """The rows of `order`, in it; the last batch is filled up with rows of weight 0."""
    source = _BatchSource(split, lambda epoch: order, batch_size=batch_size, lengths=lengths, share=share)
    return iter(grain.MapDataset.source(source).to_iter_dataset(_READ))


def batches_per_epoch(rows: int, batch_size: int) -> int:
    """How many batches hold so many rows; the last may be a partial one."""
    return -(-rows // batch_size)
