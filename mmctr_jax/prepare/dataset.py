"""A source split and numbered: everything that the prepared files are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmctr_jax.console import log as say
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.encoding import EncodedItems, encode_items, numbers_from_one, vocabulary
from mmctr_jax.prepare.log import Log, sorted_log
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.samples import Histories, candidates, most_recent
from mmctr_jax.prepare.source import Source
from mmctr_jax.prepare.split import SPLITS, TRAIN, split_log


@dataclass(frozen=True)
class Dataset:
    """A source split and numbered. Users are 1 … U, items 1 … V, those in training first."""

    log: Log  # with these numbers for users and items
    rows: list[np.ndarray]  # by split: the interactions that become samples, as row numbers of `log`
    clicks: np.ndarray  # (V + 1,) clicks in training, by item
    items: EncodedItems
    users: pl.DataFrame  # vocabulary of the source's user ids
    item_ids: pl.DataFrame  # vocabulary of the source's item ids
    side: dict[str, pl.DataFrame]  # name → vocabulary
    counts: dict[str, int]  # what the manifest says of sizes and losses


def build_dataset(source: Source, options: Options) -> Dataset:
    """Sorts, splits and numbers; the training part alone decides numbers, levels and vocabularies.

    Raises: InputError if source and options leave nothing to train or score.
    """
    log, repeated = sorted_log(source)
    _tell_of_ties(log)
    may = candidates(log, options)
    part = split_log(log, may & log.click, options)
    keys = log.items
    clicks = np.bincount(log.item[log.click & (part == TRAIN)], minlength=len(keys))
    kept_items = clicks >= options.min_item_clicks
    all_rows = len(log.user)
    if not kept_items.all():
        kept = kept_items[log.item]
        log, part = log.select(kept), part[kept]
        may = candidates(log, options)  # histories are shorter now
    rows = [most_recent(log, np.flatnonzero(may & (part == code)), options.per_user) for code in range(len(SPLITS))]
    _check_rows(log, rows, options)

    training = part == TRAIN
    item_count = np.bincount(log.item[training], minlength=len(keys))
    user_count = np.bincount(log.user[training], minlength=len(log.users))
    item_id = numbers_from_one(item_count > 0, kept_items)
    user_id = numbers_from_one(user_count > 0, np.bincount(log.user, minlength=len(log.users)) > 0)
    training_items = int((item_count > 0).sum())
    by_number = np.zeros(int(item_id.max(initial=0)) + 1, np.int64)
    by_number[item_id[kept_items]] = clicks[kept_items]
    items = encode_items(keys, item_id, source.items, by_number, training_items, options)
    return Dataset(
        log=replace(log, user=user_id[log.user], item=item_id[log.item]),
        rows=rows,
        clicks=by_number,
        items=items,
        users=_all_values(user_id, log.users, user_count),
        item_ids=_all_values(item_id, keys, item_count),
        side={name: vocabulary(log.side[name].filter(training), options.min_value_count) for name in source.side},
        counts={
            "interactions": len(source.log),
            "repeated_interactions": repeated,
            "interactions_of_rare_items": all_rows - len(log.user),
            "rare_items": int((~kept_items).sum()),
            "items_the_source_says_nothing_of": items.unknown,
            "training_items": training_items,
        },
    )


def _tell_of_ties(log: Log) -> None:
    """Warns where many clicks have no order, as where times are dates."""
    same = (np.diff(log.user) == 0) & (np.diff(log.time) == 0)
    tied = (np.append(same, False) | np.append(False, same)) & log.click
    if 20 * tied.sum() > log.click.sum():
        alone = int(((Histories(log).lengths == 0) & log.click).sum())
        say.warning(
            f"{tied.sum():,} of {log.click.sum():,} clicks are at the same time as another one of their user, as "
            f"where times are dates. A history holds clicks of strictly earlier times, so such clicks are not in each "
            f"other's, and {alone:,} clicks without an earlier one are no samples; give finer times if there are any."
        )


def _check_rows(log: Log, rows: list[np.ndarray], options: Options) -> None:
    """Raises: InputError if a split has no samples, or, with the log's own labels, only one kind of them."""
    for name, in_split in zip(SPLITS, rows, strict=True):
        if not len(in_split):
            raise InputError(
                f"--split {options.split} leaves no rows for {name}; choose another split, larger shares "
                "(--valid, --test), or a smaller --min-history."
            )
        labels = log.click[in_split]
        if options.negatives is None and labels.all() | ~labels.any():
            raise InputError(
                f"Every label of {name} is {int(labels[0])}; choose another split or larger shares, "
                "or let non-clicks be sampled with --negatives NUMBER."
            )


def _all_values(number: np.ndarray, values: pl.Series, count: np.ndarray) -> pl.DataFrame:
    """The vocabulary of everything that has a number, however rare."""
    frame = pl.DataFrame({"id": number, "value": values.cast(pl.String), "count": count.astype(np.int64)})
    return frame.filter(pl.col("id") > 0).sort("id")
