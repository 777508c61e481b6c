"""Made-up data of real shapes, for measuring."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.flops import N
from mmctr_jax.data.cache import Split

ITEMS = 91_718  # the challenge's, padding item included
TAGS = 11_740
SIDES = ("likes_level", "views_level")
LENGTHS = {"like MicroLens', mean 5": False, "all 64": True}
"""How long histories are, and whether they are `full`."""

# Share of MicroLens-50k's training rows whose history has at most so many clicks (median 3, 90 % at most 10).
_CLICKS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_SHARES = (0, 0.173, 0.345, 0.511, 0.658, 0.805, 0.874, 0.934, 0.959, 0.979, 0.988, 0.995, 1)


def microlens_lengths(rows: int, rng: np.random.Generator) -> np.ndarray:
    """(rows,) clicks, 1 … 64, distributed as MicroLens-50k's."""
    return np.ceil(np.interp(rng.random(rows), _SHARES, _CLICKS)).astype(np.int64).clip(1)


def split_of(folder: Path, lengths: np.ndarray, items: int = ITEMS) -> Split:
    """Rows with histories of the given lengths, memory-mapped from `folder` like a cache."""
    rng, rows = np.random.default_rng(0), len(lengths)
    clicks = folder / f"clicks_{len(list(folder.iterdir()))}.bin"  # not one that another split has mapped
    rng.integers(1, items, lengths.sum(), dtype=np.int32).tofile(clicks)
    return Split(
        history_values=np.asarray(np.memmap(clicks, np.int32, "r")),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item=rng.integers(1, items, rows, dtype=np.int32),
        side={name: rng.integers(1, 11, rows, dtype=np.int32) for name in SIDES},
        label=rng.integers(0, 2, rows, dtype=np.uint8),
        fingerprint="generated",
    )


def made_up_split(folder: Path, rows: int, full: bool = False) -> Split:
    """Histories as long as MicroLens-50k's, or all of N clicks."""
    return split_of(folder, np.full(rows, N) if full else microlens_lengths(rows, np.random.default_rng(1)))


def made_up_items(items: int = ITEMS) -> dict[str, np.ndarray]:
    """Tags and vectors of each item, in the challenge's shapes."""
    rng = np.random.default_rng(0)
    return {
        "item_tags": rng.integers(0, TAGS, (items, 5), dtype=np.int32),
        "item_emb_d128": rng.standard_normal((items, 128), dtype=np.float32),
    }


def made_up_batch(rows: int, length: int) -> dict[str, np.ndarray]:
    """A training batch of full histories."""
    rng = np.random.default_rng(0)
    return {
        "history": rng.integers(1, ITEMS, (rows, length), dtype=np.int32),
        "item": rng.integers(1, ITEMS, rows, dtype=np.int32),
        "side": {name: rng.integers(1, 11, rows, dtype=np.int32) for name in SIDES},
        "label": rng.integers(0, 2, rows).astype(np.float32),
        "weight": np.ones(rows, np.float32),
    }


def write_samples(path: Path, rows: int, full: bool = False, seed: int = 0) -> None:
    """A file in the challenge's schema: lists of N, left-padded, real lengths like MicroLens-50k's or all of N."""
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        [
            ("user_id", pa.int64()),
            ("item_seq", pa.list_(pa.int64(), N)),
            *[(name, pa.int64()) for name in ("item_id", "likes_level", "views_level", "label")],
        ]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 200_000):
            n = min(200_000, rows - start)
            lengths = np.full(n, N) if full else microlens_lengths(n, rng)
            values = rng.integers(1, ITEMS, (n, N))
            values[np.arange(N) < N - lengths[:, None]] = 0
            writer.write_table(
                pa.table(
                    {
                        "user_id": rng.integers(1, 1_000_001, n),
                        "item_seq": pa.FixedSizeListArray.from_arrays(values.ravel(), N),
                        "item_id": rng.integers(1, ITEMS, n),
                        "likes_level": rng.integers(1, 11, n),
                        "views_level": rng.integers(1, 11, n),
                        "label": (rng.random(n) < 0.25).astype(np.int64),
                    },
                    schema=schema,
                )
            )


def write_item_info(path: Path) -> None:
    """The challenge's item table: five left-padded tags and a float64 vector of 128 for each of 91,717 items."""
    rng = np.random.default_rng(0)
    tags = rng.integers(1, TAGS, (ITEMS, 5))
    tags[rng.random((ITEMS, 5)) < 0.5] = 0
    tags[1, 0] = TAGS - 1
    vectors = rng.normal(size=(ITEMS, 128))
    tags[0], vectors[0] = 0, 0
    pq.write_table(
        pa.table(
            {
                "item_id": np.arange(ITEMS),
                "item_tags": pa.FixedSizeListArray.from_arrays(np.sort(tags, axis=1).ravel(), 5),
                "item_emb_d128": pa.FixedSizeListArray.from_arrays(vectors.ravel(), 128),
            }
        ),
        path,
    )


def write_folder(folder: Path, rows: int, full: bool = False) -> list[str]:
    """Items, training and validation rows of the challenge's shape; returns the config overrides that name them."""
    write_item_info(folder / "item_info.parquet")
    write_samples(folder / "train.parquet", rows, full)
    write_samples(folder / "valid.parquet", 10_000, seed=1)
    names = [f"data.{name}={folder / name}.parquet" for name in ("train", "valid", "item_info")]
    return [*names, f"data.cache_dir={folder / 'cache'}"]
