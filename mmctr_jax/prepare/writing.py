"""The Parquet files of a prepared folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.console import Progress, log
from mmctr_jax.data.kept import zeros_for_now
from mmctr_jax.data.numbering import with_numbering
from mmctr_jax.data.parquet import read_columns
from mmctr_jax.errors import InputError
from mmctr_jax.prepare import encoding
from mmctr_jax.prepare.dataset import Dataset, Tables
from mmctr_jax.prepare.earlier import Earlier
from mmctr_jax.prepare.log import Log
from mmctr_jax.prepare.negatives import NegativeSampler
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.samples import Histories, RowValues, sample_tables
from mmctr_jax.prepare.source import RATE, SKIPPED, Source
from mmctr_jax.prepare.split import SPLITS, TRAIN
from mmctr_jax.prepare.sums import Histogram, Sum
from mmctr_jax.prepare.totals import FOLDS, Shard, Shards, keys_of_rows, respelled_column
from mmctr_jax.remote import opened, writing_file

_ROWS = 2**17  # of a table at once; a row group
_NEW = 0.01  # share of a split's clicks on items new to it, above which a warning is given


def write_items(out: Path, dataset: Dataset, earlier: Earlier | None = None) -> None:
    """Writes vocabularies/, item_feature.parquet and item_info.parquet, the latter with padding item 0.

    Vectors that an earlier preparation's items have are kept; new items have zeros there.
    """
    vocabularies = {"user_id": dataset.users, "item_id": dataset.item_ids, "item_tags": dataset.items.tags}
    (out / "vocabularies").mkdir()
    for name, values in (vocabularies | dataset.tables.side | dataset.items.categories).items():
        table = without_large_types(values.to_arrow())
        pq.write_table(table, out / "vocabularies" / f"{name}.parquet", write_page_checksum=True)
    features = dataset.items.features
    if (rates := dataset.tables.of_target.get(RATE)) is not None:  # for whoever asks for scores of these items
        features = features.with_columns(pl.Series(RATE, rates[-1, features["item_id"].to_numpy()]))
    _write(features.to_arrow(), out / "item_feature.parquet", dataset)
    more = [*dataset.items.categories, *dataset.items.numbers]
    known = features.select("item_id", "item_tags", *more)
    padding = {"item_id": 0, "item_tags": []} | dict.fromkeys(dataset.items.categories, 0)
    info = pl.concat([pl.DataFrame([padding], schema=known.schema), known])
    _write(info.to_arrow(), out / "item_info.parquet", dataset, _vectors_of(earlier, len(features)) if earlier else {})


def _write(table: pa.Table, path: Path, dataset: Dataset, vectors: dict[pa.Field, np.ndarray] | None = None) -> None:
    """vectors: (rows, width) of further columns."""
    table, vectors = without_large_types(table), vectors or {}
    schema = with_numbering(pa.schema([*table.schema, *vectors]), dataset.tables.numbering)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as file:
        for start in range(0, table.num_rows, _ROWS):
            piece = table.slice(start, _ROWS)
            for field, values in vectors.items():
                here = pa.array(values[start : start + _ROWS].ravel())
                piece = piece.append_column(field.name, pa.FixedSizeListArray.from_arrays(here, values.shape[1]))
            file.write_table(piece.cast(schema))


def _vectors_of(earlier: Earlier, items: int) -> dict[pa.Field, np.ndarray]:
    """The columns of vectors of an earlier item_info: padding, its items, and zeros for the new ones."""
    found = {}
    for field in pq.read_schema(earlier.info):
        if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type):
            width, known = field.type.list_size, 0
            values = zeros_for_now((items + 1, width))
            for chunk in read_columns([earlier.info], ["item_id", field.name]):
                ids = chunk["item_id"].integers()
                values[ids] = chunk[field.name].vectors(width)
                known = max(known, int(ids.max()))
            if items > known:
                log.warning(
                    f"{items - known:,} new items have zeros in {field.name}, as items without text or picture: "
                    "the model scores them by what else is known of them. `mmctr embed` on the new folder, with the "
                    "options of the earlier one, gives them vectors."
                )
            found[field] = values
    return found


def write_samples(
    out: Path, shards: Shards, dataset: Dataset, source: Source, options: Options
) -> dict[str, dict[str, Any]]:
    """Writes train, valid, test and test_labels; returns numbers that describe each split, by its name.

    Raises: InputError if a split has no samples.
    """
    writer = Writer(out, dataset.tables, source.without_rows(), shards.whole)
    written = shards.each(writer, dataset.user_id)
    of_splits = {name: reduce(add, (of_shard[name] for of_shard in written)) for name in SPLITS}
    for name, found in of_splits.items():
        if not found.rows:
            raise InputError(
                f"Every sample of {name} would be of an item that was never clicked in training. Sampled negatives "
                "never are, so it would be known as a click by that; choose another split or larger shares, or give "
                "the log's own non-clicks (--label)."
            )
    if not shards.whole:
        rows = [found["test"].rows for found in written]
        shards.each(writer.number, list(zip(np.cumsum([0, *rows[:-1]]).tolist(), rows, strict=True)))
        for name in (*SPLITS, "test_labels"):
            with writing_file(out / f"{name}.parquet" / "_SUCCESS"):
                pass
    described = {}
    for name, found in of_splits.items():
        missing = found.interactions * (1 + (options.negatives or 0)) - found.rows
        described[name] = {
            "rows": found.rows,
            "positives": found.positives,
            "users": found.users,
            "history_mean": round(found.lengths.mean(), 3),
            "history_p50": found.lengths.quantile(0.5),
            "history_p90": found.lengths.quantile(0.9),
            "clicks_on_items_not_clicked_in_training": found.on_new,
            "missing_negatives": missing,
        }
        log.info(f"{name}: {found.rows:,} rows, {found.positives:,} of them clicks")
        if missing:
            log.warning(f"{name} has {missing:,} negatives fewer than asked for: some users clicked nearly every item.")
        if options.negatives and found.on_new > _NEW * found.positives:
            log.warning(
                f"{found.on_new:,} clicks of {name} are on items that were never clicked in training. Sampled "
                "negatives never are, so such a row would give its label away: they are no samples. With real "
                "non-clicks (--label) they would be."
            )
    return described


@dataclass(frozen=True)
class Written(Sum):
    """What was written of a split."""

    rows: int = 0
    positives: int = 0
    interactions: int = 0  # that are samples
    users: int = 0  # that have samples
    lengths: Histogram = Histogram()  # of the samples' histories
    on_new: int = 0  # clicks, samples or not, on items that were not clicked in training


@dataclass(frozen=True)
class Writer:
    """Writes the samples of shards: into one file for each split, or into a part file of each shard."""

    out: Path
    tables: Tables
    source: Source  # without rows
    whole: bool

    def __call__(self, number: int, shard: Shard, user_id: np.ndarray) -> dict[str, Written]:
        """Writes a shard's samples. user_id: (U,) the numbers of its users. Returns: what was written, by split."""
        interactions, part, rows_of = self.tables.selection.of(shard)
        keys = keys_of_rows(interactions, shard.keys)
        interactions = replace(interactions, item=self.tables.item_id[interactions.item])
        options = self.tables.selection.options
        fold = np.where(part == TRAIN, shard.folds[interactions.user], FOLDS)
        histories, given = Histories(interactions), _row_values(interactions, fold, self.tables, self.source)
        clicked = interactions.user[interactions.click], interactions.item[interactions.click]
        sampler = NegativeSampler(self.tables.clicks, *clicked, options.alpha)
        new = interactions.click & (self.tables.clicks[interactions.item] == 0)
        written = {}
        for code, (name, rows) in enumerate(zip(SPLITS, rows_of, strict=True)):
            chunks = sample_tables(interactions, rows, keys, user_id, histories, sampler, given, options)
            with Progress(f"Writing {name}", len(rows), "interactions") if self.whole else nullcontext() as progress:
                found = self._write_split(number, name, chunks, progress)
            lengths = np.minimum(histories.lengths[rows], options.history)
            written[name] = found + Written(
                interactions=len(rows),
                users=len(np.unique(interactions.user[rows])),
                lengths=Histogram(np.bincount(lengths)),
                on_new=int((new & (part == code)).sum()),
            )
        return written

    def path(self, name: str, number: int) -> Path:
        """Where a shard's rows of a split, or their labels, go."""
        file = self.out / f"{name}.parquet"
        return file if self.whole else file / f"part-{number:05}.parquet"

    def _write_split(
        self, number: int, name: str, chunks: Iterator[tuple[int, pa.Table]], progress: Progress | None
    ) -> Written:
        """Writes one split, the labels of the test split to a file of their own."""
        label_columns, written = ["label", *self.source.labels], Written()
        with ExitStack() as stack:
            writers: dict[str, pq.ParquetWriter] = {}

            def write(name: str, table: pa.Table, **settings: str) -> None:
                if name not in writers:
                    stream = stack.enter_context(writing_file(self.path(name, number)))
                    schema = with_numbering(table.schema, self.tables.numbering)
                    writers[name] = stack.enter_context(
                        pq.ParquetWriter(stream, schema, write_page_checksum=True, **settings)
                    )
                writers[name].write_table(table)

            for interactions, table in chunks:
                label = table["label"]
                if name == "test":
                    ids = pa.array(np.arange(written.rows, written.rows + table.num_rows))
                    write("test_labels", table.select(["user_id", "item_id", *label_columns]).add_column(0, "ID", ids))
                    table = table.drop_columns(label_columns).add_column(0, "ID", ids)
                write(name, table, compression="zstd")
                if progress:
                    progress.advance(interactions)
                written += Written(table.num_rows, int(label.to_numpy().sum()))
        return written

    def number(self, number: int, _: Shard, place: tuple[int, int]) -> None:
        """Numbers the test rows of a shard. place: the first one's number, and how many they are."""
        first, rows = place
        for name in ("test", "test_labels") if first and rows else ():
            path = self.path(name, number)
            table = pq.read_table(opened(path), page_checksum_verification=True)
            table = table.set_column(0, "ID", pa.array(np.arange(first, first + rows)))
            with writing_file(path) as stream:
                compression = "zstd" if name == "test" else "snappy"
                pq.write_table(table, stream, compression=compression, write_page_checksum=True)


def _row_values(log: Log, fold: np.ndarray, tables: Tables, source: Source) -> RowValues:
    """What samples have besides users, items and labels."""
    values = dict(log.side)
    if tables.respelled:
        values |= {name: respelled_column(values[name], known) for name, known in tables.side.items()}
    rows: dict[str, np.ndarray | pa.Array] = {
        name: encoding.ids_of(values[name], tables.side[name]) for name in source.side
    }
    rows |= {name: log.numeric[name].astype(np.float32) for name in source.row_numbers if name != RATE}
    rows |= {
        name: encoding.encode_lists(values[name], tables.side[name]).to_arrow().cast(pa.list_(pa.int64()))
        for name in source.lists
    }
    rows |= {name: values[name].to_arrow().cast(pa.string()) for name in source.hashed}
    clicks = {}
    for name, kind in source.clicks.items():
        column = f"click_{name}"
        if kind == "categorical":
            clicks[name] = encoding.ids_of(values[column], tables.side[column])
        elif name != "gap":
            clicks[name] = log.numeric[column].astype(np.float32)
    second = {name: Histories(log, values[f"item_seq_{name}"].to_numpy()) for name in source.histories}
    if source.has_skipped:
        second[SKIPPED] = Histories(log, ~log.click)
    gap = source.time_unit if "gap" in source.clicks else None
    labels = {name: values[name].to_numpy() for name in source.labels}
    return RowValues(rows, tables.of_target, fold, clicks, second, labels, gap)


def without_large_types(table: pa.Table) -> pa.Table:
    """Without Arrow's large_ types, which not every reader accepts."""
    schema = pa.schema([(f.name, _small_type(f.type)) for f in table.schema])
    return table.cast(schema)


def _small_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind):
        return pa.list_(_small_type(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) or kind == pa.string_view() else kind
