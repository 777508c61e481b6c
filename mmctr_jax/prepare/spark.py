"""Preparation on Spark: a log in shards of users, each a file that a task of its own reads.

Spark reads the log, sorts it by user and writes a file for each shard; all else is what is done with the one shard of a
log on one machine.
"""

from __future__ import annotations

import itertools
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.console import log as say
from mmctr_jax.data.parquet import common_columns, read_row_group, row_groups, uniform_types
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.columns import Columns, item_format
from mmctr_jax.prepare.interactions import Facts, check_gap, check_items_named, log_columns, source_of, typed_log
from mmctr_jax.prepare.log import sorted_log, whole_number
from mmctr_jax.prepare.proposals import LABELS, check_ignored
from mmctr_jax.prepare.raw_tables import column_names, frame_of, read_table, require_columns, table_files
from mmctr_jax.prepare.source import Source
from mmctr_jax.prepare.text_files import is_text
from mmctr_jax.prepare.totals import Shard, Shards
from mmctr_jax.prepare.writing import without_large_types
from mmctr_jax.remote import files_in, is_remote, opened, remove, shown, writing_file

if TYPE_CHECKING:
    from pyspark import RDD, SparkContext
    from pyspark.sql import SparkSession

_ROWS_PER_SHARD = 500_000  # interactions: some hundred MB while they are worked on
_ORDER = ["_no_number", "_number", "user", "time", "_place"]  # that of `log.in_order`, then oldest first
T = TypeVar("T")


@dataclass(frozen=True)
class _Piece:
    """A part of the log that one task reads."""

    path: Path
    first: int  # row of the log
    group: int | None = None  # row group; None: the whole file, which is text


@dataclass(frozen=True)
class _Reader:
    """Reads pieces as `Source.log` has them."""

    wanted: dict[str, str]
    types: dict[str, pa.DataType]
    columns: Columns
    earlier: dict[str, Any] | None

    def __call__(self, piece: _Piece) -> tuple[pl.DataFrame, Facts]:
        """A piece, with ids as text, and what is known of it."""
        path = piece.path
        if piece.group is None:
            frame = read_table(path, self.wanted, self.columns.text_format)
        else:
            table = read_row_group(path, piece.group, self.types)
            frame = frame_of(table, path, self.wanted, self.columns.text_format)
            path = Path(f"{path}, row group {piece.group}")  # rows are counted within it
        log, facts = typed_log(frame, path, self.columns, self.earlier)
        if frame["time"].dtype == pl.String and "numbers" in facts.forms["time"]:  # whole ones only in some pieces
            log = log.with_columns(pl.col("time").cast(pl.Float64))
        return log.with_columns(pl.col("user", "item").cast(pl.String)), facts

    def facts(self, piece: _Piece) -> Facts:
        """What is known of a piece."""
        return self(piece)[1]

    def staged(self, piece: _Piece) -> pa.Table:
        """A piece with what it is sorted by, columns by number: Spark takes no name as it is."""
        frame = self(piece)[0]
        places = pl.int_range(piece.first, piece.first + len(frame), dtype=pl.Int64, eager=True)
        number = whole_number(frame["user"])
        frame = frame.with_columns(
            number.is_null().alias("_no_number"), number.alias("_number"), places.alias("_place")
        )
        return without_large_types(frame.rename({name: f"c{i}" for i, name in enumerate(frame.columns)}).to_arrow())


@contextmanager
def reading(
    path: Path, items: Path | None, columns: Columns, earlier: dict[str, Any] | None, out: Path, seed: int
) -> Iterator[tuple[Source, Shards]]:
    """The log in shards, while the block runs; they are files beside `out`, which all of Spark's machines must reach.

    Args: as those of `interactions.read`; no use is proposed for columns that nobody named.
    Raises: InputError on missing columns, and on values that are not as they must be.
    """
    check_items_named(items, columns)
    files, wanted = _files(path), log_columns(path, columns)
    present = column_names(files[0], columns.text_format) if is_text(files[0]) else common_columns(files)
    require_columns(Path(shown(path)), present, wanted, columns.text_format)
    check_gap(path, present, columns)
    if "*" not in columns.ignore:
        check_ignored({*present, *(column_names(items, item_format(items, columns)) if items else ())}, columns)
        _refuse_unnamed_label(path, present, columns)
        if others := [name for name in present if name not in columns.of_log | set(columns.ignore)]:
            say.info(f"Left out: {', '.join(others)}. With --engine spark a column is used where an option names it.")
    pieces, types = [_Piece(files[0], 0)], {}
    if not is_text(files[0]):
        groups = [group for group in row_groups(files) if group[2]]
        first = np.cumsum([0] + [rows for _, _, rows in groups])
        pieces = [_Piece(file, int(at), group) for (file, group, _), at in zip(groups, first, strict=False)]
        types = uniform_types(files, sorted(set(wanted.values())))
    session = _session()
    context, read = session.sparkContext, _Reader(wanted, types, columns, earlier)
    if not pieces:
        raise InputError(f"{path} has no rows.")
    say.info(f"Reading {shown(path)} on Spark ({context.master}), {len(pieces):,} pieces.")
    facts = _summed(context.parallelize(pieces, len(pieces)).map(partial(_guarded, read.facts)))
    facts.check(path, columns, earlier)
    head = read(pieces[0])[0].head(0)
    source = source_of(head, path, items, columns, facts.time_unit, {}, earlier)
    source = replace(source, non_clicks=bool(columns.label) and facts.clicks < facts.rows)
    parent = out.parent if is_remote(out) else out.parent.absolute()
    folder = parent / f".{out.name[:100]}_log_{secrets.token_hex(4)}"
    try:
        shards = max(context.defaultParallelism, facts.rows // _ROWS_PER_SHARD)
        say.info(f"Sorting {facts.rows:,} interactions into shards of users.")
        parts = _stage(session, pieces, read, head, shards, folder)
        yield source, SparkShards(context, parts, source.without_rows(), seed)
    finally:
        remove(folder)


def _files(path: Path) -> list[Path]:
    """The files of the log. Raises: InputError if there is none, or one that is not read."""
    if not is_remote(path):
        return [file.absolute() for file in table_files(path)]
    files = list(files_in(path))
    if others := [file.name for file in files if file.suffix.lower() != ".parquet"]:
        raise InputError(f"{shown(path)} holds {others[0]}: by URL, a log is Parquet with --engine spark; convert it.")
    return files


def _refuse_unnamed_label(path: Path, present: list[str], columns: Columns) -> None:
    for name in present:
        if not columns.label and name.lower() in LABELS and name not in (*columns.of_log, *columns.ignore):
            raise InputError(
                f"{shown(path)} has a column {name!r}; say --label {name} if it says what was clicked, or --ignore "
                f"{name} if every row is a click."
            )


def _stage(
    session: SparkSession, pieces: list[_Piece], read: _Reader, head: pl.DataFrame, shards: int, folder: Path
) -> list[Path]:
    """Writes the log into files, one for each shard: whole users, in their order, each user's interactions by time.

    Returns: the files that have rows.
    """
    names = [*head.columns, "_no_number", "_number", "_place"]
    kinds = {pl.String: "string", pl.Int64: "bigint", pl.Float64: "double", pl.Float32: "float", pl.Boolean: "boolean"}
    kinds[pl.List(pl.String)] = "array<string>"
    schema = {name: kinds[kind] for name, kind in head.schema.items()}
    schema |= {"_no_number": "boolean", "_number": "bigint", "_place": "bigint"}
    by_name = {name: f"c{i}" for i, name in enumerate(names)}
    order = [by_name[name] for name in _ORDER]

    warnings.filterwarnings("ignore", ".*pandas.*", FutureWarning, "pyspark.*")  # nothing of it is used here

    def rows(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch["number"].to_pylist():
                yield from read.staged(pieces[number]).to_batches(max_chunksize=65_536)

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        first = next(batches, None)
        if first is not None:
            number = TaskContext.get().partitionId()
            with (
                writing_file(folder / f"{number:05}.parquet") as stream,
                pq.ParquetWriter(stream, first.schema, compression="zstd") as writer,
            ):
                for batch in itertools.chain([first], batches):
                    writer.write_batch(batch)
            yield pa.record_batch({"number": pa.array([number], pa.int64())})

    numbers = session.range(0, len(pieces), 1, len(pieces)).withColumnRenamed("id", "number")
    frame = numbers.mapInArrow(rows, ", ".join(f"{by_name[name]} {schema[name]}" for name in names))
    frame = frame.repartitionByRange(shards, *order[:3]).sortWithinPartitions(*order)
    with _one_sentence():
        written = frame.mapInArrow(write, "number bigint").collect()
    return [folder / f"{row.number:05}.parquet" for row in sorted(written)]


class SparkShards:
    """Shards that are files; a task for each."""

    whole = False

    def __init__(self, context: SparkContext, files: list[Path], source: Source, seed: int):
        """Takes files in the order of their users. source: without rows."""
        self._context, self._files = context, files
        self._load = partial(_load, source=source, seed=seed)

    def total(self, find: Callable[[int, Shard], T]) -> T:
        """See `Shards`."""
        return _summed(self._done(partial(_find, load=self._load, find=find), None))

    def each(self, work: Callable[[int, Shard, Any], T], arguments: Sequence[Any] | None = None) -> list[T]:
        """See `Shards`."""
        with _one_sentence():
            found = self._done(partial(_work, load=self._load, work=work), arguments).collect()
        return [_result(each) for each in found]

    def _done(self, task: Callable[[tuple[int, Path, Any]], T], arguments: Sequence[Any] | None) -> RDD:
        given = [None] * len(self._files) if arguments is None else arguments
        tasks = [(number, *pair) for number, pair in enumerate(zip(self._files, given, strict=True))]
        return self._context.parallelize(tasks, len(tasks)).map(partial(_guarded, task))


def _load(file: Path, source: Source, seed: int) -> Shard:
    names = source.log.columns  # before those that it was sorted by
    table = pq.read_table(opened(file), columns=[f"c{i}" for i in range(len(names))])
    frame = pl.from_arrow(table.rename_columns(names))
    return Shard(*sorted_log(replace(source, log=frame)), seed)


def _find(task: tuple[int, Path, Any], load: Callable[[Path], Shard], find: Callable[[int, Shard], T]) -> T:
    number, file, _ = task
    return find(number, load(file))


def _work(task: tuple[int, Path, Any], load: Callable[[Path], Shard], work: Callable[[int, Shard, Any], T]) -> T:
    number, file, argument = task
    return work(number, load(file), argument)


def _guarded(task: Callable[[Any], T], given: Any) -> T | InputError:
    """What the task returns, or its error in one sentence, which Spark would make a page of."""
    try:
        return task(given)
    except InputError as error:
        return error


def _result(found: T | InputError) -> T:
    if isinstance(found, InputError):
        raise found
    return found


def _plus(one: T | InputError, other: T | InputError) -> T | InputError:
    errors = [each for each in (one, other) if isinstance(each, InputError)]
    return errors[0] if errors else one + other


def _summed(found: RDD) -> Any:
    with _one_sentence():
        return _result(found.treeReduce(_plus))


@contextmanager
def _one_sentence() -> Iterator[None]:
    """Raises: InputError in place of what Spark raises."""
    from pyspark.errors import PySparkException

    try:
        yield
    except PySparkException as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(f"Spark gave up: {lines[0] if lines else type(error).__name__}; its log says more.") from None
    except Exception as error:
        if type(error).__module__.split(".")[0] != "py4j":
            raise
        reason = next((line for line in str(error).splitlines() if "Exception" in line or "Error" in line), "no reason")
        raise InputError(f"Spark gave up: {reason.strip()[:300]}; its log says more.") from None


def _session() -> SparkSession:
    """Spark as spark-submit, spark-defaults.conf or PYSPARK_SUBMIT_ARGS say; without any, on this machine's cores."""
    try:
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError:
        raise InputError(
            "--engine spark needs pyspark; install it: pip install 'mmctr-jax[spark]' (and Java 17 or later)."
        ) from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # Spark's own default is another Python than this
    try:
        session = SparkSession.builder.appName("mmctr prepare").getOrCreate()
    except (PySparkException, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"Spark does not start: {reason}; it needs Java 17 or later (JAVA_HOME).") from None
    session.sparkContext.setLogLevel("ERROR")
    return session
