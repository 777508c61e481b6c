"""Source and options → the prepared folder."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

import mmctr_jax
from mmctr_jax.console import Progress, log
from mmctr_jax.errors import InputError
from mmctr_jax.files import sha256, writing
from mmctr_jax.prepare import encoding, folder
from mmctr_jax.prepare.log import Log, sorted_log
from mmctr_jax.prepare.negatives import NegativeSampler
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.samples import Histories, candidates, most_recent, tables
from mmctr_jax.prepare.source import Source
from mmctr_jax.prepare.split import SPLITS, TRAIN, split_log

_PACKAGES = ("polars", "pyarrow", "numpy")
_NEW = 0.01  # share of a split's clicks on items new to it, above which one is warned


def check_free(out: Path) -> None:
    """Raises InputError if the output folder exists or cannot be made: to be asked before reading what may be large."""
    if not str(out).isprintable():
        raise InputError(f"--out {ascii(str(out))} holds characters that cannot be printed; name another folder.")
    try:
        if out.exists() or out.is_symlink():
            raise InputError(f"Output folder {out} exists; remove it or name another with --out.")
        there = next(path for path in out.absolute().parents if path.exists())
    except OSError as error:
        raise InputError(f"--out {str(out)[:100]} cannot be a folder: {error.strerror}; name another.") from None
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"Output folder {out} cannot be made: {there} cannot be written; name another with --out.")


def prepare(kind: str, source: Source, options: Options, out: Path) -> dict[str, Any]:
    """Writes the new folder `out`, whole or not at all, and returns its manifest. The same input gives the same bytes.

    Raises: InputError if `out` exists or cannot be written, or if source and options leave nothing to train or score.
    """
    check_free(out)
    if not len(source.log):
        raise InputError(f"{source.files[0]} has no rows.")
    if options.split == "time" and not source.has_times:
        raise InputError("--split time needs times, and this source only has each user's order; choose user or last.")
    if options.negatives is None and not source.has_non_clicks:
        raise InputError("--negatives logged: the log has no non-clicks (label 0); give a number to sample instead.")
    prepared, counts = _number(source, options)
    with writing(out, "mend that, or name another with --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}_", dir=out.parent))
        try:
            temporary.chmod(0o755)  # mkdtemp's own is for this user alone
            _write_tables(temporary, prepared)
            splits = _write_samples(temporary, options, prepared)
            manifest = _manifest(out, kind, source, options, prepared, counts | {"splits": splits})
            folder.write(temporary, manifest)
            os.replace(temporary, out)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return manifest


@dataclasses.dataclass(frozen=True)
class _Prepared:
    log: Log  # users and items by their numbers
    rows: list[np.ndarray]  # by split: the interactions that become samples
    clicks: np.ndarray  # (V + 1,) in training
    items: encoding.EncodedItems
    users: pl.DataFrame  # vocabulary
    item_values: pl.DataFrame  # likewise
    side: dict[str, pl.DataFrame]  # likewise


def _number(source: Source, options: Options) -> tuple[_Prepared, dict[str, int]]:
    """Sorts, splits and numbers; only what is in training decides numbers, levels and vocabularies."""
    log, repeated = sorted_log(source)
    may = candidates(log, options)
    part = split_log(log, may & log.click, options)
    keys = log.items
    clicks = np.bincount(log.item[log.click & (part == TRAIN)], minlength=len(keys))
    kept_items = clicks >= options.min_item_clicks
    rows_before = len(log.user)
    if not kept_items.all():
        kept = kept_items[log.item]
        log, part = log.select(kept), part[kept]
        may = candidates(log, options)  # histories are shorter now
    rows = [most_recent(log, np.flatnonzero(may & (part == code)), options.per_user) for code in range(len(SPLITS))]
    _check_rows(log, rows, options)

    training = part == TRAIN
    item_count = np.bincount(log.item[training], minlength=len(keys))
    user_count = np.bincount(log.user[training], minlength=len(log.users))
    item_id = encoding.numbers(item_count > 0, kept_items)
    user_id = encoding.numbers(user_count > 0, np.bincount(log.user, minlength=len(log.users)) > 0)
    training_items = int((item_count > 0).sum())
    by_number = np.zeros(int(item_id.max(initial=0)) + 1, np.int64)
    by_number[item_id[kept_items]] = clicks[kept_items]
    items = encoding.build(keys, item_id, source.items, by_number, training_items, options)
    prepared = _Prepared(
        log=dataclasses.replace(log, user=user_id[log.user], item=item_id[log.item]),
        rows=rows,
        clicks=by_number,
        items=items,
        users=_values(user_id, log.users, user_count),
        item_values=_values(item_id, keys, item_count),
        side={
            name: encoding.vocabulary(log.side[name].filter(training), options.min_value_count) for name in source.side
        },
    )
    return prepared, {
        "interactions": len(source.log),
        "repeated_interactions": repeated,
        "interactions_of_rare_items": rows_before - len(log.user),
        "rare_items": int((~kept_items).sum()),
        "items_the_source_says_nothing_of": items.unknown,
        "training_items": training_items,
    }


def _check_rows(log: Log, rows: list[np.ndarray], options: Options) -> None:
    """Raises InputError if a split has no samples, or of the log's own labels one alone."""
    for name, mine in zip(SPLITS, rows, strict=True):
        if not len(mine):
            raise InputError(
                f"--split {options.split} leaves no rows for {name}; choose another split, larger shares "
                "(--valid, --test), or a smaller --min-history."
            )
        labels = log.click[mine]
        if options.negatives is None and labels.all() | ~labels.any():
            raise InputError(
                f"Every label of {name} is {int(labels[0])}; choose another split or larger shares, "
                "or let non-clicks be sampled with --negatives NUMBER."
            )


def _values(number: np.ndarray, values: pl.Series, count: np.ndarray) -> pl.DataFrame:
    frame = pl.DataFrame({"id": number, "value": values.cast(pl.String), "count": count.astype(np.int64)})
    return frame.filter(pl.col("id") > 0).sort("id")


def _write_tables(out: Path, prepared: _Prepared) -> None:
    """vocabularies/, item_feature.parquet and item_info.parquet."""
    vocabularies = {"user_id": prepared.users, "item_id": prepared.item_values, "item_tags": prepared.items.tags}
    (out / "vocabularies").mkdir()
    for name, values in (vocabularies | prepared.side).items():
        pq.write_table(_plain(values.to_arrow()), out / "vocabularies" / f"{name}.parquet")
    features = prepared.items.features
    pq.write_table(_plain(features.to_arrow()), out / "item_feature.parquet", compression="zstd")
    schema = {"item_id": pl.Int64, "item_tags": pl.List(pl.Int64)}
    padding = pl.DataFrame({"item_id": [0], "item_tags": [[]]}, schema=schema)
    info = pl.concat([padding, features.select("item_id", "item_tags")])
    pq.write_table(_plain(info.to_arrow()), out / "item_info.parquet", compression="zstd")


def _manifest(
    out: Path, kind: str, source: Source, options: Options, prepared: _Prepared, found: dict[str, Any]
) -> dict[str, Any]:
    side = [{"name": name, "vocab_size": len(values) + 1} for name, values in prepared.side.items()]
    side += [{"name": f"{name}_level", "vocab_size": options.bins + 1} for name in options.levels]
    return {
        "format": folder.FORMAT,
        "folder": str(out),
        "source": kind,
        "files": [_describe(file) for file in source.files],
        "options": dataclasses.asdict(options) | {"clicks": "new" if options.only_new else "all"},
        **found,
        "items": len(prepared.items.features),
        "users": len(prepared.users),
        "tags": len(prepared.items.tags),
        "side": side,
        "level_bounds": prepared.items.bounds,
        "weight": prepared.log.weight is not None,
        "embedding": None,
        "notes": source.notes,
        "versions": {"mmctr_jax": mmctr_jax.__version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _write_samples(out: Path, options: Options, prepared: _Prepared) -> dict[str, dict[str, Any]]:
    """train, valid, test and test_labels .parquet; returns what each has."""
    log_ = prepared.log
    histories = Histories(log_)
    clicked = log_.user[log_.click], log_.item[log_.click]
    sampler = NegativeSampler(prepared.clicks, *clicked, options.alpha, options.seed)
    side = {name: encoding.encode(log_.side[name], values) for name, values in prepared.side.items()}
    stats = {}
    for code, name in enumerate(SPLITS):
        rows = prepared.rows[code]
        chunks = tables(log_, rows, code, histories, sampler, side, prepared.items.levels, options)
        with Progress(f"Writing {name}", len(rows), "interactions") as progress:
            found = _write_split(out, name, chunks, progress)
        kept = np.minimum(histories.lengths[rows], options.history)
        on_new = int((prepared.clicks[log_.item[rows[log_.click[rows]]]] == 0).sum())
        missing = len(rows) * (1 + (options.negatives or 0)) - found["rows"]
        stats[name] = found | {
            "users": len(np.unique(log_.user[rows])),
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
                f"{on_new:,} clicks of {name} are on items never clicked in training, as no sampled negative is: "
                "such rows are known by that alone, and the AUC flatters. Real non-clicks (--label) would not do so."
            )
    return stats


def _write_split(out: Path, name: str, chunks, progress: Progress) -> dict[str, int]:
    rows = positives = 0
    writer = labels = None
    try:
        for interactions, table in chunks:
            label = table["label"]
            if name == "test":
                ids = pa.array(np.arange(rows, rows + table.num_rows))
                table = table.drop_columns("label").add_column(0, "ID", ids)
                labels = labels or pq.ParquetWriter(
                    out / "test_labels.parquet", pa.schema({"ID": ids.type, "label": label.type})
                )
                labels.write_table(pa.table({"ID": ids, "label": label}))
            writer = writer or pq.ParquetWriter(out / f"{name}.parquet", table.schema, compression="zstd")
            writer.write_table(table)
            progress.advance(interactions)
            rows, positives = rows + table.num_rows, positives + int(label.to_numpy().sum())
    finally:
        for each in (writer, labels):
            if each:
                each.close()
    return {"rows": rows, "positives": positives}


def _plain(table: pa.Table) -> pa.Table:
    """Without large_ types, which not every reader takes."""
    schema = pa.schema([(f.name, _plain_type(f.type)) for f in table.schema])
    return table.cast(schema)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind):
        return pa.list_(_plain_type(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) or kind == pa.string_view() else kind


def _describe(file: Path) -> dict[str, Any]:
    return {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256(file).hexdigest()}
