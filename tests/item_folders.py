"""Folders of items with titles, as `embed` takes them, and what it left in them."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def write_folder(folder: Path, titles: list[str | None], training: int | None = None, originals: bool = True) -> Path:
    """A folder in the challenge's schema; with `training`, as prepare writes it."""
    folder.mkdir(parents=True)
    ids = np.arange(1, len(titles) + 1)
    feature = {"item_id": ids, "item_title": pa.array(titles, pa.string())}
    if originals:
        feature |= {"item": [f"{1000 + i}" for i in ids]}
    pq.write_table(pa.table(feature), folder / "item_feature.parquet")
    info = pa.table(
        {
            "item_id": np.arange(len(titles) + 1, dtype=np.int32),
            "item_tags": pa.array([[]] + [[int(i)] for i in ids], pa.list_(pa.int64())),
        }
    )
    pq.write_table(info, folder / "item_info.parquet")
    if training is not None:
        manifest = {
            "format": 1,
            "folder": str(folder),
            "training_items": training,
            "options": {"history": 64},
            "embedding": None,
        }
        manifest |= {"splits": {"train": {"rows": 100, "history_p90": 10}}, "tags": True, "side": [], "weight": False}
        manifest |= {"items": 30}
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def vectors_of(path: Path, column: str) -> np.ndarray:
    """By item id, padding item 0 included."""
    table = pq.read_table(path / "item_info.parquet" if path.is_dir() else path).sort_by("item_id")
    return np.stack(table[column].to_pylist())


def contents(folder: Path) -> dict[str, str]:
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def missing_in(folder: Path) -> dict[int, str]:
    with open(folder / "items_without_embedding.csv", newline="", encoding="utf-8") as stream:
        return {int(row["item_id"]): row["missing"] for row in csv.DictReader(stream)}
