"""Semantic codes and neighbours of a file's or made-up vectors: time to fit, codes in use, reconstruction error."""

import argparse
import time

import numpy as np

from benchmarks.harness import Table
from mmctr_jax import cli
from mmctr_jax.data.parquet import part_files, read_columns
from mmctr_jax.features import CodesFeature, NeighboursFeature

DIM = 128


def made_up(items: int) -> np.ndarray:
    """Clusters of clusters, so that there is something to quantise at every level."""
    rng = np.random.default_rng(0)
    coarse, fine = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (100, 10_000))
    vectors = rng.normal(size=(items, DIM), scale=0.5).astype(np.float32)
    vectors += coarse[rng.integers(0, 100, items)] + 0.7 * fine[rng.integers(0, 10_000, items)]
    vectors[0] = 0
    return vectors


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run derived")
    parser.add_argument("--item-info", help="file with item_emb_d128 (default: made-up vectors)")
    parser.add_argument("--items", type=int, default=100_000, help="how many made-up vectors")
    parser.add_argument("--no-neighbours", action="store_true", help="codes alone: neighbours grow with items squared")
    args = parser.parse_args(argv)

    def measure() -> int:
        if args.item_info:
            chunks = read_columns(part_files(args.item_info), ["item_emb_d128"])
            vectors = np.concatenate([chunk["item_emb_d128"].vectors(DIM) for chunk in chunks])
        else:
            vectors = made_up(args.items)
        common = {"source": "item_emb_d128", "dim": DIM}
        sizes = ((3, 128), (3, 256), (1, 256), (1, 1024))
        features = [CodesFeature(kind="codes", name="codes", levels=n, size=size, **common) for n, size in sizes]
        if not args.no_neighbours:
            features.append(NeighboursFeature(kind="neighbours", name="near", top_k=5, **common))
        table = Table("feature", "items", "seconds", "codes in use", "squared error / variance, by level")
        for feature in features:
            started = time.monotonic()
            found = feature.fit(vectors)
            seconds = time.monotonic() - started
            what, used, error = f"{getattr(feature, 'top_k', '')} neighbours", "", ""
            if feature.kind == "codes":
                what = f"codes {feature.levels} × {feature.size}"
                used = ", ".join(map(str, found["used"]))
                error = ", ".join(f"{x:.3f}" for x in found["error"])
            table.row(what, f"{len(vectors):,}", f"{seconds:.1f}", used, error)
        return 0

    cli.run_main(measure)
