"""An earlier preparation, whose numbers, levels and popularity a newer log goes on with (`mmctr prepare --like`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mmctr_jax.config import load_config
from mmctr_jax.data.numbering import Numbering, check_same_numbering, numbering_of
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.encoding import Numbers, ids_of, numbers_from_one
from mmctr_jax.prepare.folder import MANIFEST, max_history, read_manifest
from mmctr_jax.remote import is_elsewhere, local, shown
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied, is_run


@dataclass(frozen=True)
class Earlier:
    """What a newer log needs of an earlier prepared folder."""

    folder: str  # or its URL
    manifest: dict[str, Any]
    numbering: Numbering
    users: pl.DataFrame  # vocabularies: id, value, count; of items clicks, too
    items: pl.DataFrame
    tags: pl.DataFrame
    side: dict[str, pl.DataFrame]  # of all other features with ids, of rows, clicks and items
    features: pl.DataFrame  # item_feature.parquet, by item number
    info: Path  # item_info.parquet, which may be larger than the memory
    max_history: int  # of the model that is to go on

    @property
    def columns(self) -> dict[str, Any]:
        """What the columns of its source became (`Source.columns`)."""
        return self.manifest["columns"]

    @property
    def fitted_items(self) -> int:
        """Up to which number its vectors are fitted on items: for those of new items to be of the same PCA."""
        return self.manifest.get("fitted_items", self.manifest["training_items"])

    @property
    def vectors(self) -> str | None:
        """The column of vectors that `mmctr embed` wrote, which known items keep."""
        column = (self.manifest["embedding"] or {}).get("column")
        return column if column in pq.read_schema(self.info).names else None

    def numbers(self, name: str) -> Numbers:
        """How a model takes that column of numbers."""
        return Numbers(**self.manifest["numbers"][name])

    @property
    def levels(self) -> tuple[str, ...]:
        """The numbers of items that became levels."""
        return tuple(self.manifest["options"]["levels"])


def read_earlier(path: Path) -> Earlier:
    """Reads a prepared folder, or the one that a run was trained on.

    Raises: InputError if it is neither, or was prepared by a version that kept no fingerprints.
    """
    place, of_run, run = path, "", None
    if is_run(path):
        run = RunDirectory(copied(path))
        config = load_config(run.config_file)
        place = Path(config.data.item_info).parent
        of_run = f", which {shown(path)} was trained on,"
    named, folder = shown(place), _read_here(place)
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"--like {named}{of_run} is no folder that mmctr prepare wrote; name one, or a run of one.")
    numbering = numbering_of(folder / "item_info.parquet")
    if numbering is None:
        raise InputError(
            f"--like {named} was prepared by a version that did not keep how ids were numbered; prepare it again."
        )
    if run:
        check_same_numbering(numbering, named, run.read_metadata().get("numbering"), shown(path))
    if "columns" not in manifest:
        raise InputError(f"--like {named} was prepared by a version that did not keep its columns; prepare it again.")
    columns = manifest["columns"]
    side = [*columns["side"], *columns["lists"], *columns["item_side"]]
    side += [f"click_{name}" for name, kind in columns["clicks"].items() if kind == "categorical"]
    try:
        pq.read_schema(info := folder / "item_info.parquet")
        return Earlier(
            named,
            manifest,
            numbering,
            _vocabulary(folder, "user_id"),
            _vocabulary(folder, "item_id"),
            _vocabulary(folder, "item_tags"),
            {name: _vocabulary(folder, name) for name in side},
            pl.from_arrow(_table(folder / "item_feature.parquet")).sort("item_id"),
            info,
            config.model.max_history if run else max_history(manifest),
        )
    except (OSError, pa.ArrowException, pl.exceptions.PolarsError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--like {named} cannot be read: {reason}.") from None


def _read_here(folder: Path) -> Path:
    """The folder; for a URL, one with copies of what is read of it. Raises: InputError if it has no manifest."""
    if not is_elsewhere(folder):
        return local(folder)
    names = (MANIFEST, "item_info.parquet", "item_feature.parquet", "vocabularies")
    return [local(folder / name) for name in names][0].parent


def _table(path: Path) -> pa.Table:
    return pq.read_table(path, page_checksum_verification=True)


def _vocabulary(folder: Path, name: str) -> pl.DataFrame:
    return pl.from_arrow(_table(folder / "vocabularies" / f"{name}.parquet")).sort("id")


def numbers_after(values: pl.Series, first: np.ndarray, rest: np.ndarray, known: pl.DataFrame | None) -> np.ndarray:
    """(n,) int64: `numbers_from_one`; with the vocabulary `known`, its numbers, and after these new ones."""
    if known is None:
        return numbers_from_one(first, rest)
    old = ids_of(values, known)
    new = numbers_from_one(first & (old == 0), rest & (old == 0))
    return np.where(first | rest, np.where(new > 0, new + len(known), old), 0)


def with_known(vocabulary: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """A vocabulary and the values that an earlier one has beyond it, by number; counts are added up."""
    if known is None:
        return vocabulary
    both = pl.concat([known.select("id", "value", "count"), vocabulary])
    return both.group_by("id").agg(pl.col("value").first(), pl.col("count").sum()).sort("id")
