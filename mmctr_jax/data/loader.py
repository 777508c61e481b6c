"""Rows → batches, through Grain.

An element of the Grain source is a whole batch, gathered at once from the ragged arrays. Epochs follow each other in
one long index, so the loader's position is that index, the number of batches taken, and nothing else: it is the same on
any number of hosts, and resuming there gives the batches that would have come.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import grain
import numpy as np

from mmctr_jax.data.cache import Split

Batch = dict[str, np.ndarray]
"""history (B, N) int32, zeros on the left; item (B,) int32; side (B, S) int32; label, weight (B,) float32.

Rows of weight 0 fill the last batch up; they count in no loss, gradient or metric."""


@dataclass(frozen=True)
class Share:
    """Which rows of each global batch this process reads: part `index` of `count` equal parts.

    Batches are filled up to a multiple of `devices` (of all processes together), so that every device gets as many.
    """

    index: int = 0
    count: int = 1
    devices: int = 1


def pad_histories(split: Split, rows: np.ndarray, length: int) -> np.ndarray:
    """(rows, length) int32: each row's most recent clicks at the right, zeros on the left."""
    ends = split.history_offsets[rows + 1]
    starts = np.maximum(split.history_offsets[rows], ends - length)
    at = ends[:, None] + np.arange(-length, 0)
    real = at >= starts[:, None]
    history = np.zeros(at.shape, np.int32)
    history[real] = split.history_values[at[real]]
    return history


class _BatchSource(grain.sources.RandomAccessDataSource):
    """Element i is batch i % batches_per_epoch of epoch i // batches_per_epoch."""

    def __init__(self, split: Split, batch_size: int, length: int, share: Share, epochs: int, seed: int | None):
        self.split, self.batch_size, self.length, self.share, self.seed = split, batch_size, length, share, seed
        self.batches_per_epoch = -(-split.rows // batch_size)
        self.epochs = epochs
        self._lock = threading.Lock()  # Grain reads from several threads
        self._orders: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return self.batches_per_epoch * self.epochs

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Row order of an epoch: a function of seed and epoch alone; file order without a seed."""
        with self._lock:
            if epoch not in self._orders:
                order = np.arange(self.split.rows)
                if self.seed is not None:
                    np.random.Generator(np.random.Philox(key=[self.seed, epoch])).shuffle(order)
                # Around the end of an epoch threads ask for both; older ones are not needed again.
                self._orders = {e: o for e, o in self._orders.items() if e == epoch - 1} | {epoch: order}
            return self._orders[epoch]

    def __getitem__(self, index) -> Batch:
        epoch, number = divmod(int(index), self.batches_per_epoch)
        rows = self._epoch_order(epoch)[number * self.batch_size : (number + 1) * self.batch_size]
        share = self.share
        size = -(-self.batch_size // share.devices) * share.devices // share.count
        return self._gather(rows[share.index * size : (share.index + 1) * size], size)

    def _gather(self, rows: np.ndarray, size: int) -> Batch:
        split, n = self.split, len(rows)
        batch = {
            "history": np.zeros((size, self.length), np.int32),
            "item": np.zeros(size, np.int32),
            "side": np.zeros((size, split.side.shape[1]), np.int32),
            "label": np.zeros(size, np.float32),
            "weight": np.zeros(size, np.float32),
        }
        batch["history"][:n] = pad_histories(split, rows, self.length)
        batch["item"][:n] = split.item[rows]
        batch["side"][:n] = split.side[rows]
        if split.label is not None:
            batch["label"][:n] = split.label[rows]
        batch["weight"][:n] = 1.0 if split.weight is None else split.weight[rows]
        return batch


# Two reader threads keep a few batches ready; more would only fight over the interpreter lock (the arrays are mapped).
_READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)


def train_batches(
    split: Split, *, batch_size: int, length: int, seed: int, epochs: int, start: int = 0, share: Share = Share()
) -> Iterator[Batch]:
    """Batches of `epochs` epochs from global batch index `start` on, rows shuffled anew in each; the last batch of an
    epoch is filled up with rows of weight 0. `length` is N; `batch_size` is global."""
    source = _BatchSource(split, batch_size, length, share, epochs, seed)
    return iter(grain.MapDataset.source(source)[start:].to_iter_dataset(_READ))


def eval_batches(split: Split, *, batch_size: int, length: int, share: Share = Share()) -> Iterator[Batch]:
    """Every row once, in file order; the last batch is filled up with rows of weight 0."""
    source = _BatchSource(split, batch_size, length, share, epochs=1, seed=None)
    return iter(grain.MapDataset.source(source).to_iter_dataset(_READ))


def batches_per_epoch(rows: int, batch_size: int) -> int:
    return -(-rows // batch_size)
