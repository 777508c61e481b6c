"""A source split and numbered: everything that the prepared files are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from mmctr_jax.console import log as say
from mmctr_jax.data.numbering import Numbering, grown
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.earlier import Earlier, numbers_after, with_known
from mmctr_jax.prepare.encoding import (
    EncodedItems,
    KnownItems,
    Numbers,
    encode_items,
    numbers_of,
    respelled,
    vocabulary,
)
from mmctr_jax.prepare.log import Log, sorted_log
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.samples import Histories, candidates, most_recent
from mmctr_jax.prepare.source import Source
from mmctr_jax.prepare.split import SPLITS, TRAIN, split_log

_MANY_NEW = 0.2  # share of values that an earlier vocabulary lacks, from which on it is warned of
_SAMPLES_OF_GAPS = 20_000  # enough for quantiles


@dataclass(frozen=True)
class Dataset:
    """A source split and numbered. Users are 1 … U, items 1 … V, those in training first."""

    log: Log  # with these numbers for users and items
    rows: list[np.ndarray]  # by split: the interactions that become samples, as row numbers of `log`
    clicks: np.ndarray  # (V + 1,) clicks in training, by item
    items: EncodedItems
    users: pl.DataFrame  # vocabulary of the source's user ids
    item_ids: pl.DataFrame  # vocabulary of the source's item ids
    side: dict[str, pl.DataFrame]  # name → vocabulary of a feature of rows or clicks
    numbers: dict[str, Numbers]  # name → how a model takes it, of rows, clicks and items
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
    item_id = numbers_after(keys, item_count > 0, kept_items, known_items)
    present = np.bincount(log.user, minlength=len(log.users)) > 0
    user_id = numbers_after(log.users, user_count > 0, present, known_users)
    first_new = len(known_items) + 1 if earlier else 1
    training_items = first_new - 1 + int(((item_count > 0) & (item_id >= first_new)).sum())
    by_number = np.zeros(max(int(item_id.max(initial=0)) + 1, first_new), np.int64)
    by_number[item_id[kept_items]] = clicks[kept_items]
    known = None
    if earlier:
        by_number[1:first_new] += known_items["clicks"].to_numpy()
        categories = {name: earlier.side[name] for name in source.item_side}
        numbers_known = {name: earlier.numbers(name) for name in source.item_numeric}
        bounds = earlier.manifest["level_bounds"]
        known = KnownItems(earlier.features, earlier.tags, bounds, categories, numbers_known)
    of_items = source.item_side, source.item_numeric
    items = encode_items(keys, item_id, source.items, by_number, training_items, options, known, *of_items)
    item_ids = with_known(_all_values(item_id, keys, item_count), known_items)
    with_ids = [*source.side, *source.lists]
    with_ids += [f"click_{name}" for name, kind in source.clicks.items() if kind == "categorical"]
    if earlier:
        log = _respelled(log, with_ids, earlier)
    side = {name: _side(name, log.side[name].filter(training), earlier, options) for name in with_ids}
    named = {"item_id": item_ids, "item_tags": items.tags} | side | items.categories
    before = earlier.numbering if earlier else {}
    numbering = {name: grown(values["value"], before.get(name)) for name, values in named.items()}
    numeric = {name: values[training] for name, values in log.numeric.items()}
    if "gap" in source.clicks:
        numeric["click_gap"] = _gaps(log, rows[TRAIN], options) / source.time_unit
    numbers = {
        name: earlier.numbers(name) if earlier else numbers_of(values, options.bins) for name, values in numeric.items()
    } | items.numbers
    numbering |= {f"{name}_level": grown(found, before.get(f"{name}_level")) for name, found in items.bounds.items()}
    numbering |= {name: grown(found.described, before.get(name)) for name, found in numbers.items()}
    return Dataset(
        log=replace(log, user=user_id[log.user], item=item_id[log.item]),
        rows=rows,
        clicks=by_number,
        items=items,
        users=with_known(_all_values(user_id, log.users, user_count), known_users),
        item_ids=item_ids.with_columns(clicks=pl.Series(by_number[item_ids["id"].to_numpy()])),
        side=side,
        numbers=numbers,
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
    if earlier:
        return earlier.side[name]
    values = values.explode() if isinstance(values.dtype, pl.List) else values
    return vocabulary(values, options.min_value_count)


def _respelled(log: Log, names: list[str], earlier: Earlier) -> Log:
    """The log with values as the earlier preparation spelled them. Says how many rows have values new to it."""
    side = dict(log.side)
    for name in names:
        values, known = side[name], earlier.side[name]
        if isinstance(values.dtype, pl.List):
            each = values.explode()
        else:
            each = side[name] = respelled(values, known)
        new = each.filter(each.is_not_null() & ~each.is_in(known["value"].implode()))
        if len(new):
            share = len(new) / max(len(each) - each.null_count(), 1)
            tell = say.warning if share >= _MANY_NEW else say.info
            tell(f"{share:.1%} of the values of {name} are new, such as {new[0]!r}; they count as unknown.")
    return replace(log, side=side)


def _gaps(log: Log, rows: np.ndarray, options: Options) -> np.ndarray:
    """The times from clicks to samples, of samples spread evenly over these rows."""
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLES_OF_GAPS)).astype(int))]
    offsets, clicked = Histories(log).places(some, options.history)
    return (np.repeat(log.time[some], np.diff(offsets)) - log.time[clicked]).astype(np.float64)


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
