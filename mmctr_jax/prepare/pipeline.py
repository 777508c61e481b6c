"""A source and options → a prepared folder, with its manifest."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

import mmctr_jax
from mmctr_jax.errors import InputError
from mmctr_jax.files import sha256, writing
from mmctr_jax.prepare import folder
from mmctr_jax.prepare.columns import option
from mmctr_jax.prepare.dataset import Dataset, build_dataset
from mmctr_jax.prepare.earlier import Earlier
from mmctr_jax.prepare.log import sorted_log
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.raw_values import as_times, is_clock
from mmctr_jax.prepare.source import EARLIER, RATE, SKIPPED, Source
from mmctr_jax.prepare.totals import LocalShards, Shard, Shards
from mmctr_jax.prepare.writing import write_items, write_samples
from mmctr_jax.remote import exists, files_in, is_remote, remove, shown, writing_file

T = TypeVar("T")
_PACKAGES = ("polars", "pyarrow", "numpy")
_LONGEST = 16  # of a row's lists, in the config
_SKIPPED = f"item_seq_{SKIPPED}"


def check_free(out: Path) -> None:
    """Raises: InputError if the output folder exists or cannot be made. To be called before a long reading begins."""
    if not str(out).isprintable():
        raise InputError(f"--out {ascii(str(out))} holds characters that cannot be printed; name another folder.")
    if is_remote(out):
        if exists(out):
            raise InputError(f"Output folder {shown(out)} exists; remove it or name another with --out.")
        return
    try:
        if out.exists() or out.is_symlink():
            raise InputError(f"Output folder {out} exists; remove it or name another with --out.")
        there = next(path for path in out.absolute().parents if path.exists())
    except OSError as error:
        raise InputError(f"--out {str(out)[:100]} cannot be a folder: {error.strerror}; name another.") from None
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"Output folder {out} cannot be made: {there} cannot be written; name another with --out.")


def prepare(
    kind: str, source: Source, options: Options, out: Path, earlier: Earlier | None = None, shards: Shards | None = None
) -> dict[str, Any]:
    """Writes the new folder `out`, whole or not at all; the same input gives the same bytes.

    Args:
      kind: of the source, for the manifest.
      earlier: whose numbers, levels, popularity and vectors the new folder goes on with.
      shards: the source's log, if it is elsewhere; None: `source.log`.
    Returns: the manifest.
    Raises: InputError if `out` exists or cannot be written, or if source and options leave nothing to train or score.
    """
    check_free(out)
    if shards is None and not len(source.log):
        raise InputError(f"{source.files[0]} has no rows.")
    if options.split == "time" and not source.has_times:
        raise InputError("--split time needs times, and this source only has each user's order; choose user or last.")
    if options.negatives is None and not source.has_non_clicks:
        raise InputError("--negatives logged: the log has no non-clicks (label 0); give a number to sample instead.")
    if earlier:
        options = _like(earlier, source, options)
    rates = _rates(options, earlier)
    skipped = rates and (earlier is None or any(f["name"] == _SKIPPED for f in earlier.manifest["side"]))
    source = replace(source, rates=rates, has_skipped=skipped)
    shards = shards or LocalShards([Shard(*sorted_log(source), options.seed)])
    dataset = build_dataset(shards, source, options, earlier)
    with writing(shown(out), "correct that, or name another with --out"), _whole(out) as (here, there):
        write_items(here, dataset, earlier)
        splits = write_samples(there, shards, dataset, source, options)
        manifest = _manifest(out, kind, source, options, dataset, splits, earlier, shards.whole)
        folder.write(here, manifest)
    return manifest


@contextmanager
def _whole(out: Path) -> Iterator[tuple[Path, Path]]:
    """Where to write on this machine, and where all machines can, so that `out` appears whole or not at all.

    At a URL, the manifest comes last; without one, it is no prepared folder.
    """
    parent = None if is_remote(out) else out.parent.absolute()
    if parent:
        parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name[:100]}_", dir=parent))
    try:
        temporary.chmod(0o755)  # mkdtemp's own is for this user alone
        yield temporary, temporary if parent else out
        if parent:
            os.replace(temporary, out)
            return
        files = [file for file in temporary.rglob("*") if file.is_file()]
        for file in sorted(files, key=folder.is_manifest):
            with file.open("rb") as read, writing_file(out / file.relative_to(temporary)) as written:
                shutil.copyfileobj(read, written)
    except BaseException:
        if not parent:
            remove(out)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rates(options: Options, earlier: Earlier | None) -> bool:
    """Whether rows have their user's earlier click rate and the target's: where the log says what was shown.

    Sampled negatives share their click's user, and an item's rate among them says how they were drawn.
    Raises: InputError if an earlier preparation's rows have rates, and this log has no non-clicks to make them of.
    """
    logged = options.negatives is None
    if not earlier:
        return logged
    rates = all(name in earlier.manifest["numbers"] for name in (*EARLIER, RATE))
    if rates and not logged:
        raise InputError(
            f"--like {earlier.folder}: rows there have click rates, which are made of what was shown and not clicked; "
            "give a log that has some (--label), and no number of --negatives."
        )
    return rates


def moment(text: str, source: Source) -> float:
    """A time as the log has them: a date or ISO 8601 text where its times are such, otherwise a number of their unit.

    Raises: InputError if it is neither.
    """
    values, dates = pl.Series([text]), source.time_unit > 1
    if not source.has_times or is_clock(values) != dates:
        has = "dates" if dates else "numbers" if source.has_times else "no times, but each user's order"
        raise InputError(f"--since {text!r}: the log has {has}; give a time as it has them.")
    return as_times(values, Path("--since"), "time")[0]


def _like(earlier: Earlier, source: Source, options: Options) -> Options:
    """The options with levels as the earlier preparation had them.

    Raises: InputError if other features are asked for.
    """
    for name, now in source.columns.items():
        then = earlier.columns[name]
        if name in ("item_lists", "item_texts"):  # tags and texts may come from elsewhere
            continue
        if sorted(now) != sorted(then) or (isinstance(now, dict) and now != then):
            said = (
                ",".join(f"{key}={value}" for key, value in then.items()) if isinstance(then, dict) else ",".join(then)
            )
            asked = f"--{option(name)}"
            raise InputError(f"{asked} must be as in --like {earlier.folder}: {asked} '{said}'.")
    then = earlier.manifest["options"]
    if options.bins not in (Options.bins, then["bins"]):
        raise InputError(f"--bins must be as in --like {earlier.folder}: --bins {then['bins']}.")
    least = options.min_history if options.min_history is not None else then.get("min_history")
    return replace(options, levels=earlier.levels, bins=then["bins"], min_history=least)


def _manifest(
    out: Path,
    kind: str,
    source: Source,
    options: Options,
    dataset: Dataset,
    splits: dict[str, dict[str, Any]],
    earlier: Earlier | None,
    hashed: bool,
) -> dict[str, Any]:
    """The manifest. hashed: whether the source's files are read once more, for their digests."""
    return {
        "format": folder.FORMAT,
        "folder": shown(out),
        "source": kind,
        "files": [_describe(file, hashed) for file in source.files],
        "options": dataclasses.asdict(options)
        | {"clicks": "new" if options.only_new else "all", "min_history": options.least_history},
        **dataset.counts,
        "splits": splits,
        "items": len(dataset.items.features),
        "users": len(dataset.users),
        "tags": len(dataset.items.tags),
        **_features(source, dataset, options, earlier),
        "labels": _as_before(source.labels, earlier.manifest.get("labels", {}) if earlier else {}),
        "columns": source.columns,
        "item_keys": source.keys,
        "tag_separator": source.tag_separator,
        "reasons": source.reasons,
        "numbers": {name: dataclasses.asdict(found) for name, found in dataset.numbers.items()},
        "level_bounds": dataset.items.bounds,
        "times": dataset.times,
        "weight": "weight" in source.log.columns,
        "embedding": earlier.manifest["embedding"] if earlier else None,
        "known_vectors": earlier.vectors if earlier else None,
        "max_history": earlier.max_history if earlier else None,
        "known_items": len(earlier.items) if earlier else 0,
        "fitted_items": earlier.fitted_items if earlier else dataset.counts["training_items"],
        "like": earlier.folder if earlier else None,
        "notes": source.notes,
        "versions": {"mmctr_jax": mmctr_jax.__version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
    }


def _features(
    source: Source, dataset: Dataset, options: Options, earlier: Earlier | None
) -> dict[str, list[dict[str, Any]]]:
    """The features of the config, as settings, but for tags and vectors of items."""
    before = {feature["name"]: feature.get("length") for feature in earlier.manifest["side"]} if earlier else {}

    def categorical(name: str) -> dict[str, Any]:
        return {"name": name, "vocab_size": len(dataset.tables.side[name]) + 1}

    def numeric(name: str) -> dict[str, Any]:
        return {"kind": "numeric", "name": name} | dataclasses.asdict(dataset.numbers[name])

    side = [categorical(name) for name in source.side]
    side += [{"name": f"{name}_level", "vocab_size": options.bins + 1} for name in options.levels]
    side += [numeric(name) for name in source.row_numbers]
    for name in source.lists:
        longest = min(max(dataset.longest[name], 1), _LONGEST)
        side.append({"kind": "tags"} | categorical(name) | {"length": before.get(name) or longest})
    side += [{"name": name, "hash": size} for name, size in source.hashed.items()]
    second = [f"item_seq_{name}" for name in source.histories] + [_SKIPPED] * source.has_skipped
    side += [{"kind": "items", "name": name, "length": _LONGEST} for name in second]
    clicks = [
        (categorical if kind == "categorical" else numeric)(f"click_{name}") for name, kind in source.clicks.items()
    ]
    of_items = [{"kind": "categorical", "name": name} for name in source.item_side]
    of_items += [numeric(name) for name in source.item_numeric]
    found = {"side": side, "clicks": clicks, "item_features": of_items}
    return {
        place: [*_as_before({f["name"]: f for f in features}, _names(earlier, place)).values()]
        for place, features in found.items()
    }


def _names(earlier: Earlier | None, place: str) -> list[str]:
    return [f["name"] for f in earlier.manifest.get(place, [])] if earlier else []


def _as_before(found: dict[str, T], names: Iterable[str]) -> dict[str, T]:
    """In the order that an earlier preparation had them in, which is that of the model that goes on."""
    return {name: found[name] for name in names if name in found} | found


def _describe(file: Path, hashed: bool) -> dict[str, Any]:
    size = files_in(file)[file] if is_remote(file) else file.stat().st_size
    described = {"name": file.name, "bytes": size}
    return described | ({"sha256": sha256(file).hexdigest()} if hashed else {})
