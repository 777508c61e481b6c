"""A source split and numbered: everything that the prepared files are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmctr_jax.console import log as say
from mmctr_jax.data.numbering import Numbering, grown
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.earlier import Earlier, numbers, with_known
from mmctr_jax.prepare.encoding import (
    EncodedItems,
    KnownItems,
    encode_items,
    levels_of,
    quantile_bounds,
    vocabulary,
)
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
    row_levels: dict[str, np.ndarray]  # numbers of the interactions: name → (R,) level
    bounds: dict[str, list[float]]  # name → bounds between these levels
    counts: dict[str, int]  # what the manifest says of sizes and losses
    numbering: Numbering  # of all vocabularies and levels


def build_dataset(source: Source, options: Options, earlier: Earlier | None = None) -> Dataset:
    """Sorts, splits and numbers; the training part alone decides numbers, levels and vocabularies.

    What an earlier preparation has numbered keeps its numbers; what it had not comes after that.
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
    known_items, known_users = (earlier.items, earlier.users) if earlier else (None, None)
    item_id = numbers(keys, item_count > 0, kept_items, known_items)
    present = np.bincount(log.user, minlength=len(log.users)) > 0
    user_id = numbers(log.users, user_count > 0, present, known_users)
    first_new = len(known_items) + 1 if earlier else 1
    training_items = first_new - 1 + int(((item_count > 0) & (item_id >= first_new)).sum())
    by_number = np.zeros(max(int(item_id.max(initial=0)) + 1, first_new), np.int64)
    by_number[item_id[kept_items]] = clicks[kept_items]
    known = None
    if earlier:
        by_number[1:first_new] += known_items["clicks"].to_numpy()
        known = KnownItems(earlier.features, earlier.tags, earlier.manifest["level_bounds"])
    items = encode_items(keys, item_id, source.items, by_number, training_items, options, known)
    item_ids = with_known(_all_values(item_id, keys, item_count), known_items)
    side = {name: _side(name, log.side[name].filter(training), earlier, options) for name in source.side}
    named = {"item_id": item_ids, "item_tags": items.tags} | side
    before = earlier.numbering if earlier else {}
    numbering = {name: grown(values["value"], before.get(name)) for name, values in named.items()}
    bounds = {name: _bounds(name, values[training], earlier, options) for name, values in log.numeric.items()}
    every = (items.bounds | bounds).items()
    numbering |= {f"{name}_level": grown(found, before.get(f"{name}_level")) for name, found in every}
    return Dataset(
        log=replace(log, user=user_id[log.user], item=item_id[log.item]),
        rows=rows,
        clicks=by_number,
        items=items,
        users=with_known(_all_values(user_id, log.users, user_count), known_users),
        item_ids=item_ids.with_columns(clicks=pl.Series(by_number[item_ids["id"].to_numpy()])),
        side=side,
        row_levels={name: levels_of(values, bounds[name]) for name, values in log.numeric.items()},
        bounds=bounds,
        counts={
            "interactions": len(source.log),
            "repeated_interactions": repeated,
            "interactions_of_rare_items": all_rows - len(log.user),
            "rare_items": int((~kept_items).sum()),
            "items_the_source_says_nothing_of": items.unknown,
            "training_items": training_items,
            **(_new_values(items, item_ids, earlier) if earlier else {}),
        },
        numbering=numbering,
    )


def _side(name: str, values: pl.Series, earlier: Earlier | None, options: Options) -> pl.DataFrame:
    """The vocabulary of a row's feature: the earlier one's, if there is one, as a model's tables have their size."""
    return earlier.side[name] if earlier else vocabulary(values, options.min_value_count)


def _bounds(name: str, values: np.ndarray, earlier: Earlier | None, options: Options) -> list[float]:
    """Between the levels of a number of the interactions."""
    return earlier.manifest["level_bounds"][name] if earlier else quantile_bounds(values, options.bins)


def _new_values(items: EncodedItems, item_ids: pl.DataFrame, earlier: Earlier) -> dict[str, int]:
    counts = {"new_items": len(item_ids) - len(earlier.items), "new_tags": len(items.tags) - len(earlier.tags)}
    say.info(
        f"Numbered as {earlier.folder}: {len(earlier.items):,} items keep their numbers, {counts['new_items']:,} are "
        f"new; {counts['new_tags']:,} tags are new."
    )
    return counts


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
