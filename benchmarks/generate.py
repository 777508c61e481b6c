"""Made-up data of real shapes, for measuring."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.data.cache import Split

ITEMS = 91_718  # the challenge's, padding item included
TAGS = 11_740


# Share of MicroLens-50k's training rows whose history has at most so many clicks (median 3, 90 % at most 10).
_CLICKS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_SHARES = (0, 0.173, 0.345, 0.511, 0.658, 0.805, 0.874, 0.934, 0.959, 0.979, 0.988, 0.995, 1)


def microlens_lengths(rows: int, rng: np.random.Generator) -> np.ndarray:
    """(rows,) clicks, 1 … 64, distributed as MicroLens-50k's."""
    return np.ceil(np.interp(rng.random(rows), _SHARES, _CLICKS)).astype(np.int64).clip(1)


def generated_split(folder: Path, rows: int, lengths: np.ndarray, seed: int = 0, items: int = ITEMS) -> Split:
    """Rows with histories of the given lengths, memory-mapped from `folder` like a cache."""
    rng = np.random.default_rng(seed)
    clicks = folder / f"clicks_{len(list(folder.iterdir()))}.bin"  # not one that another split has mapped
    rng.integers(1, items, lengths.sum(), dtype=np.int32).tofile(clicks)
    return Split(
        history_values=np.asarray(np.memmap(clicks, np.int32, "r")),
        history_offsets=np.concatenate([[0], np.cumsum(lengths)]),
        item=rng.integers(1, items, rows, dtype=np.int32),
        side=rng.integers(1, 11, (rows, 2), dtype=np.int32),
        label=rng.integers(0, 2, rows, dtype=np.uint8),
        fingerprint="generated",
    )


def write_samples(path: Path, rows: int, seed: int = 0, history: int = 64, padded: bool = True) -> None:
    """A file in the challenge's schema: fixed-size lists of 64, left-padded, real lengths like MicroLens'."""
    rng = np.random.default_rng(seed)
    schema = pa.schema(
        [
            ("user_id", pa.int64()),
            ("item_seq", pa.list_(pa.int64(), history)),
            *[(name, pa.int64()) for name in ("item_id", "likes_level", "views_level", "label")],
        ]
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 200_000):
            n = min(200_000, rows - start)
            lengths = np.full(n, history) if not padded else np.minimum(microlens_lengths(n, rng), history)
            values = rng.integers(1, ITEMS, (n, history))
            values[np.arange(history) < history - lengths[:, None]] = 0
            writer.write_table(
                pa.table(
                    {
                        "user_id": rng.integers(1, 1_000_001, n),
                        "item_seq": pa.FixedSizeListArray.from_arrays(values.ravel(), history),
                        "item_id": rng.integers(1, ITEMS, n),
                        "likes_level": rng.integers(1, 11, n),
                        "views_level": rng.integers(1, 11, n),
                        "label": (rng.random(n) < 0.25).astype(np.int64),
                    },
                    schema=schema,
                )
            )


def write_item_info(path: Path, seed: int = 0) -> None:
    """The challenge's item table: five left-padded tags and a float64 vector of 128 for each of 91,717 items."""
    rng = np.random.default_rng(seed)
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
