"""The Parquet files of a prepared folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.console import Progress, log
from mmctr_jax.data.numbering import with_numbering
from mmctr_jax.prepare import encoding
from mmctr_jax.prepare.dataset import Dataset
from mmctr_jax.prepare.earlier import Earlier
from mmctr_jax.prepare.negatives import NegativeSampler
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.samples import Histories, RowValues, sample_tables
from mmctr_jax.prepare.source import Source
from mmctr_jax.prepare.split import SPLITS

_NEW = 0.01  # share of a split's clicks on items new to it, above which a warning is given


def write_items(out: Path, dataset: Dataset, earlier: Earlier | None = None) -> None:
    """Writes vocabularies/, item_feature.parquet and item_info.parquet, the latter with padding item 0.

    Vectors that an earlier preparation's items have are kept; new items have zeros there.
    """
    vocabularies = {"user_id": dataset.users, "item_id": dataset.item_ids, "item_tags": dataset.items.tags}
    (out / "vocabularies").mkdir()
    for name, values in (vocabularies | dataset.side | dataset.items.categories).items():
        table = _without_large_types(values.to_arrow())
        pq.write_table(table, out / "vocabularies" / f"{name}.parquet", write_page_checksum=True)
    features = dataset.items.features
    _write(features.to_arrow(), out / "item_feature.parquet", dataset)
    more = [*dataset.items.categories, *dataset.items.numbers]
    known = features.select("item_id", "item_tags", *more)
    padding = {"item_id": 0, "item_tags": []} | dict.fromkeys(dataset.items.categories, 0)
    info = pl.concat([pl.DataFrame([padding], schema=known.schema), known])
    table = info.to_arrow()
    for field, vectors in _vectors_of(earlier, len(features)) if earlier else ():
        table = table.append_column(field, vectors)
    _write(table, out / "item_info.parquet", dataset)


def _write(table: pa.Table, path: Path, dataset: Dataset) -> None:
    table = _without_large_types(table)
    table = table.cast(with_numbering(table.schema, dataset.numbering))
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


def _vectors_of(earlier: Earlier, items: int) -> Iterator[tuple[pa.Field, pa.Array]]:
    """The columns of vectors of an earlier item_info: padding, its items, and zeros for the new ones."""
    for field in earlier.info.schema:
        if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type):
            width, known = field.type.list_size, earlier.info[field.name].combine_chunks()
            values = np.zeros((items + 1, width), np.float32)
            values[1 : len(known) + 1] = known.flatten().to_numpy().reshape(-1, width)
            if items > len(known):
                log.warning(
                    f"{items - len(known):,} new items have zeros in {field.name}, as items without text or picture: "
                    "the model scores them by what else is known of them. `mmctr embed` on the new folder, with the "
                    "options of the earlier one, gives them vectors."
                )
            yield field, pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)


def write_samples(out: Path, dataset: Dataset, source: Source, options: Options) -> dict[str, dict[str, Any]]:
    """Writes train, valid, test and test_labels .parquet; returns numbers that describe each split, by its name."""
    interactions = dataset.log
    histories = Histories(interactions)
    clicked = interactions.user[interactions.click], interactions.item[interactions.click]
    sampler = NegativeSampler(dataset.clicks, *clicked, options.alpha, options.seed)
    given = _row_values(dataset, source)
    described = {}
    for code, name in enumerate(SPLITS):
        rows = dataset.rows[code]
        chunks = sample_tables(interactions, rows, code, histories, sampler, given, options)
        with Progress(f"Writing {name}", len(rows), "interactions") as progress:
            found = _write_split(out, name, chunks, ["label", *source.labels], dataset, progress)
        kept = np.minimum(histories.lengths[rows], options.history)
        on_new = int((dataset.clicks[interactions.item[rows[interactions.click[rows]]]] == 0).sum())
        missing = len(rows) * (1 + (options.negatives or 0)) - found["rows"]
        described[name] = found | {
            "users": len(np.unique(interactions.user[rows])),
            "history_mean": round(float(kept.mean()), 3),
            "history_p50": int(np.quantile(kept, 0.5)),
            "history_p90": int(np.quantile(kept, 0.9)),
            "clicks_on_items_not_clicked_in_training": on_new,
            "missing_negatives": missing,
        }
        log.info(f"{name}: {found['rows']:,} rows, {found['positives']:,} of them clicks")
        if missing:
            log.warning(f"{name} has {missing:,} negatives fewer than asked for: some users clicked nearly every item.")
        if options.negatives and on_new > _NEW * found["positives"]:
            log.warning(
                f"{on_new:,} clicks of {name} are on items that were never clicked in training, and sampled negatives "
                "never are: such rows give their label away, and the AUC flatters. With real non-clicks (--label) it "
                "would not."
            )
    return described


def _row_values(dataset: Dataset, source: Source) -> RowValues:
    """What samples have besides users, items and labels."""
    log = dataset.log
    rows: dict[str, np.ndarray | pa.Array] = {
        name: encoding.ids_of(log.side[name], dataset.side[name]) for name in source.side
    }
    rows |= {name: log.numeric[name].astype(np.float32) for name in source.numeric}
    rows |= {
        name: encoding.encode_lists(log.side[name], dataset.side[name]).to_arrow().cast(pa.list_(pa.int64()))
        for name in source.lists
    }
    rows |= {name: log.side[name].to_arrow().cast(pa.string()) for name in source.hashed}
    clicks = {}
    for name, kind in source.clicks.items():
        column = f"click_{name}"
        if kind == "categorical":
            clicks[name] = encoding.ids_of(log.side[column], dataset.side[column])
        elif name != "gap":
            clicks[name] = log.numeric[column].astype(np.float32)
    second = {name: Histories(log, log.side[f"item_seq_{name}"].to_numpy()) for name in source.histories}
    gap = source.time_unit if "gap" in source.clicks else None
    labels = {name: log.side[name].to_numpy() for name in source.labels}
    return RowValues(rows, dataset.items.levels, clicks, second, labels, gap)


def _write_split(
    out: Path,
    name: str,
    chunks: Iterator[tuple[int, pa.Table]],
    label_columns: list[str],
    dataset: Dataset,
    progress: Progress,
) -> dict[str, int]:
    """Writes one split, the labels of the test split to a file of their own; returns `rows` and `positives`."""
    rows = positives = 0
    writer = labels = None
    try:
        for interactions, table in chunks:
            label = table["label"]
            if name == "test":
                ids = pa.array(np.arange(rows, rows + table.num_rows))
                known = table.select(label_columns).add_column(0, "ID", ids)
                table = table.drop_columns(label_columns).add_column(0, "ID", ids)
                labels = labels or pq.ParquetWriter(
                    out / "test_labels.parquet",
                    with_numbering(known.schema, dataset.numbering),
                    write_page_checksum=True,
                )
                labels.write_table(known)
            writer = writer or pq.ParquetWriter(
                out / f"{name}.parquet",
                with_numbering(table.schema, dataset.numbering),
                compression="zstd",
                write_page_checksum=True,
            )
            writer.write_table(table)
            progress.advance(interactions)
            rows, positives = rows + table.num_rows, positives + int(label.to_numpy().sum())
    finally:
        for each in (writer, labels):
            if each:
                each.close()
    return {"rows": rows, "positives": positives}


def _without_large_types(table: pa.Table) -> pa.Table:
    """Without Arrow's large_ types, which not every reader accepts."""
    schema = pa.schema([(f.name, _small_type(f.type)) for f in table.schema])
    return table.cast(schema)


def _small_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind):
        return pa.list_(_small_type(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) or kind == pa.string_view() else kind
