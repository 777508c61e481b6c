"""The published model at its published sizes, on made-up data of MicroLens' shape, ready to be measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks import flops
from benchmarks.flops import N
from benchmarks.generate import ITEMS, TAGS, generated_split, microlens_lengths
from mmctr_jax.config import Config, parse_config
from mmctr_jax.data.cache import Split
from mmctr_jax.data.loader import history_lengths, train_batches, training_lengths
from mmctr_jax.devices.sharding import make_mesh, on_devices, put_replicated
from mmctr_jax.models import live
from mmctr_jax.training.scoring import make_score
from mmctr_jax.training.step import init_state, make_train_step, parameter_shapes


def published_config(items: int = ITEMS, *, train: dict | None = None, **model: Any) -> Config:
    return parse_config(
        {
            "data": {"train": "-", "valid": "-", "item_info": "-"},
            "features": {
                "num_items": items,
                "item_features": [
                    {"kind": "tags", "name": "item_tags", "vocab_size": TAGS},
                    {"kind": "embedding", "name": "item_emb_d128", "dim": 128},
                ],
            },
            "model": model,
            "train": train or {},
        }
    )


def made_up_items(items: int = ITEMS) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "item_tags": rng.integers(0, TAGS, (items, 5), dtype=np.int32),
        "item_emb_d128": rng.standard_normal((items, 128), dtype=np.float32),
    }


def made_up_split(folder: Path, rows: int, full: bool = False, items: int = ITEMS) -> Split:
    """Histories as long as MicroLens-50k's, or all of N clicks."""
    lengths = np.full(rows, N) if full else microlens_lengths(rows, np.random.default_rng(1))
    return generated_split(folder, rows, lengths, items=items)


def made_up_batch(rows: int, length: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "history": rng.integers(1, ITEMS, (rows, length), dtype=np.int32),
        "item": rng.integers(1, ITEMS, rows, dtype=np.int32),
        "side": rng.integers(1, 11, (rows, 2), dtype=np.int32),
        "label": rng.integers(0, 2, rows).astype(np.float32),
        "weight": np.ones(rows, np.float32),
    }


class Ours:
    """The model of `config`, trained and scored as train.py and predict.py do, but for files and reports."""

    def __init__(self, config: Config, items: dict[str, np.ndarray]):
        self.config, self.mesh = config, make_mesh()
        self.items = put_replicated(items, self.mesh)
        self.train_step = make_train_step(config, self.mesh)
        self.state = init_state(config, self.items, self.mesh)

    def adam_bytes(self, length: int) -> int:
        """The traffic of an update for histories of at most `length` clicks (`flops.adam_bytes`)."""
        shapes = parameter_shapes(live.narrowed(self.config, length), self.items)
        whole, part = (sum(math.prod(x.shape) for x in jax.tree.leaves(t)) for t in (self.state.params, shapes))
        return flops.adam_bytes(whole, part)

    @cached_property
    def _score(self) -> Callable:
        return make_score(self.config, self.mesh)

    def train(self, split: Split, epochs: int = 1) -> float:
        """Steps through `epochs` epochs, loading included, metrics read one step late; returns the last loss."""
        train, lengths = self.config.train, training_lengths(self.config, history_lengths(split))
        batches = train_batches(split, batch_size=train.batch_size, lengths=lengths, seed=1, epochs=epochs)
        pending = None
        for batch in on_devices(batches, self.mesh):
            self.state, metrics = self.train_step(self.state, batch, self.items, np.float32(5e-4))
            if pending is not None:
                float(pending["loss"])
            pending = metrics
        return float(pending["loss"])

    def score(self, split: Split) -> np.ndarray:
        return self._score(self.state.params, self.state.batch_stats, split, self.items)


def seconds(action: Callable[[], Any], times: int = 1) -> float:
    """The median time of `times` calls; what they return is waited for."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(action())
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def matrix_rate(precision: str = "highest", dtype: Any = np.float32, size: int = 4096) -> float:
    """FLOP/s of a product of two square matrices, here and now: the best of a few."""
    x = jax.random.normal(jax.random.PRNGKey(0), (size, size)).astype(dtype)
    product = jax.jit(lambda a, b: jax.numpy.dot(a, b, precision=precision))
    seconds(lambda: product(x, x))
    return 2 * size**3 / min(seconds(lambda: product(x, x)) for _ in range(5))


def copy_rate(megabytes: int = 1024) -> float:
    """Bytes/s, read and written, of adding 1 to an array in place: the best of a few."""
    n = megabytes * 2**18
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [add(jax.numpy.zeros(n, np.float32))]

    def once():
        box[0] = add(box[0])
        return box[0]

    seconds(once)
    return 8 * n / min(seconds(once) for _ in range(5))
