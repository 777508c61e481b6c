"""A source split and numbered: everything that the prepared files are made from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

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
    levels_of,
    numbers_of,
    vocabulary_of,
)
from mmctr_jax.prepare.log import all_keys
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.raw_values import (
    alike_categories,
    check_ids_go_on,
    check_items_match,
    check_spelling,
    far_from_today,
)
from mmctr_jax.prepare.source import RATE, Source
from mmctr_jax.prepare.split import SPLITS, find_cuts
from mmctr_jax.prepare.totals import Look, Selection, Shards, Totals, count, look

_PRIOR_ROWS = 5  # that an item's click rate begins with
_SAMPLE_OF_RATES = 1_000_000  # that their mean and ranges are measured on
_MANY_NEW = 0.2  # share of values that an earlier vocabulary lacks, from which on it is warned of
_OTHER_UNIT = 100  # times the earlier times, from which on times are in another unit; seconds grow slowly
_LEAST_DATE = 10**7  # from which on numbers are times since 1970 or dates, and no counters or days
_NOBODY, _SOME_USERS = 0.2, 10  # share of the rows, from which on a user, of so many, may be a word for nobody
T = TypeVar("T")


@dataclass(frozen=True)
class Tables:
    """What the samples of a user are made from, besides the user's interactions."""

    selection: Selection
    item_id: np.ndarray  # (n,) int64 numbers of the selection's items; 0 for those that are dropped
    clicks: np.ndarray  # (V + 1,) clicks in training, by item
    of_target: dict[str, np.ndarray]  # (V + 1,) of each column of items; or (folds + 1, V + 1) for rows by their fold
    side: dict[str, pl.DataFrame]  # name → vocabulary of a feature of rows or clicks
    respelled: bool  # whether these are an earlier preparation's, which may have spelled values otherwise
    numbering: Numbering  # of all vocabularies and levels


@dataclass(frozen=True)
class Dataset:
    """A source split and numbered. Users are 1 … U, items 1 … V, those in training first."""

    tables: Tables
    user_id: list[np.ndarray]  # by shard, (U,) int64 numbers of its users
    items: EncodedItems
    users: pl.DataFrame  # vocabulary of the source's user ids
    item_ids: pl.DataFrame  # vocabulary of the source's item ids
    numbers: dict[str, Numbers]  # name → how a model takes it, of rows, clicks and items
    longest: dict[str, int]  # of each list
    times: dict[str, float]  # their unit and size
    totals: Totals
    counts: dict[str, int]  # what the manifest says of sizes and losses


def build_dataset(shards: Shards, source: Source, options: Options, earlier: Earlier | None = None) -> Dataset:
    """Splits and numbers; the training part alone decides numbers, levels and vocabularies.

    What an earlier preparation has numbered keeps its numbers; what it had not comes after that.
    Raises: InputError if source and options leave nothing to train or score.
    """
    seen = shards.total(partial(look, options=options, lists=source.lists))
    users = pl.concat(_by_shard(seen.users))
    times = {"unit": source.time_unit, "median": float(np.median(np.abs(seen.times.values.astype(np.float64))))}
    _check_times(seen.times.values)
    _check_goes_on(source, earlier, seen, users, times)
    _tell_of_ties(seen)
    _tell_of_short_histories(seen, options)
    keys = all_keys(seen.items.values, source.items["item"])
    for ids, what in ((users, "user"), (seen.items.values, "item")):
        if warning := check_spelling(ids, what):
            say.warning(warning)
    if options.since and source.time_unit == 1:
        _check_form_of_since(options.since, seen.times.values)
    cuts = find_cuts(seen.recent.values, np.concatenate(_by_shard(seen.keys)), options)
    selection = Selection(options, keys, cuts, source.rates)
    with_ids = [*source.side, *source.lists]
    with_ids += [f"click_{name}" for name, kind in source.clicks.items() if kind == "categorical"]
    counting = partial(count, with_gaps="gap" in source.clicks)
    kept_items = np.ones(len(keys), bool)
    if options.min_item_clicks:
        alone = replace(selection, rates=False)
        clicks = shards.total(partial(counting, selection=alone, categorical=[], earlier={})).clicks
        kept_items = clicks >= options.min_item_clicks
        selection = replace(selection, kept=kept_items)
    vocabularies = {name: earlier.side[name] for name in with_ids} if earlier else {}
    totals = shards.total(partial(counting, selection=selection, categorical=with_ids, earlier=vocabularies))
    _tell_of_new_values(totals)
    _check_rows(totals, options)

    item_count, clicks = totals.item_rows, totals.clicks
    user_count, present = (np.concatenate(_by_shard(found)) for found in (totals.user_rows, totals.present))
    _tell_of_one_user(users, present)
    known_items, known_users = (earlier.items, earlier.users) if earlier else (None, None)
    item_id = numbers_after(keys, item_count > 0, kept_items, known_items)
    user_id = numbers_after(users, user_count > 0, present > 0, known_users)
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
    if options.negatives:  # which are never items without clicks in training, so a click on one would be known by that
        selection = replace(selection, targets=by_number[item_id] > 0)
    of_items = source.item_side, source.item_numeric
    items = encode_items(keys, item_id, source.items, by_number, training_items, options, known, *of_items)
    item_ids = with_known(_all_values(item_id, keys, item_count), known_items)
    side = vocabularies or {
        name: vocabulary_of(totals.values[name].frame, options.min_value_count) for name in with_ids
    }
    user_ids = with_known(_all_values(user_id, users, user_count), known_users)
    _tell_of_alike_values({"tags": items.tags} | side | items.categories)
    named = {"item_id": item_ids, "user_id": user_ids, "item_tags": items.tags} | side | items.categories
    before = earlier.numbering if earlier else {}
    numbering = {name: grown(values["value"], before.get(name)) for name, values in named.items()}
    numeric = {name: found.values for name, found in totals.numbers.items()}
    if totals.gaps:
        numeric["click_gap"] = np.concatenate([np.zeros(0), *totals.gaps.values]) / source.time_unit
    of_target = dict(items.levels)
    if source.rates:
        clicks_elsewhere, of_target[RATE], numeric[RATE] = out_of_fold(totals.by_fold, item_id, len(by_number))
        if "clicks_level" in of_target:
            found = levels_of(np.where(clicks_elsewhere > 0, clicks_elsewhere, np.nan), items.bounds["clicks"])
            of_target["clicks_level"] = np.append(found, [items.levels["clicks_level"]], axis=0)
    numbers = {
        name: earlier.numbers(name) if earlier else numbers_of(values, options.bins) for name, values in numeric.items()
    } | items.numbers
    numbering |= {f"{name}_level": grown(found, before.get(f"{name}_level")) for name, found in items.bounds.items()}
    numbering |= {name: grown(found.described, before.get(name)) for name, found in numbers.items()}
    return Dataset(
        tables=Tables(selection, item_id, by_number, of_target, side, earlier is not None, numbering),
        user_id=np.split(user_id, np.cumsum([len(found) for found in _by_shard(seen.users)])[:-1]),
        items=items,
        users=user_ids,
        item_ids=item_ids.with_columns(clicks=pl.Series(by_number[item_ids["id"].to_numpy()])),
        numbers=numbers,
        longest={name: max(_by_shard(found)) for name, found in seen.longest.items()},
        times=times,
        totals=totals,
        counts={
            "interactions": seen.rows + seen.repeated,
            "repeated_interactions": seen.repeated,
            "interactions_of_rare_items": seen.rows - totals.rows,
            "rare_items": int((~kept_items).sum()),
            "items_the_source_says_nothing_of": items.unknown,
            "training_items": training_items,
            **(_new_values(items, item_ids, earlier) if earlier else {}),
        },
    )


def out_of_fold(by_fold: np.ndarray, item_id: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What users of the other folds did with each item in training, for training rows, and all users, for other rows.

    So a training row sees nothing of its own label, nor of its user's others. Few rows say little of a rate: each item
    is counted as if it had `_PRIOR_ROWS` more, with as many clicks as all items have.

    Args:
      by_fold: (2, folds, n) `Totals.by_fold`.
      item_id: (n,) their numbers.
      size: V + 1.
    Returns: (folds, size) clicks, by item number; (folds + 1, size) float32, the share of clicks, the last row
      for rows that are not in training; and at most a million such shares of training rows, evenly of all.
    """
    clicks, rows = (np.append(of.sum(axis=0) - of, [of.sum(axis=0)], axis=0) for of in by_fold)
    prior = clicks[-1].sum() / max(rows[-1].sum(), 1)
    found = (clicks + _PRIOR_ROWS * prior) / (rows + _PRIOR_ROWS)
    numbered, rates = np.zeros((len(by_fold[0]), size)), np.full((len(found), size), prior, np.float32)
    numbered[:, item_id], rates[:, item_id] = clicks[:-1], found
    numbered[:, 0], rates[:, 0] = 0, prior  # items that are dropped
    until = np.cumsum(by_fold[1])
    at = np.linspace(0, until[-1], min(until[-1], _SAMPLE_OF_RATES), endpoint=False)
    return numbered, rates, found[:-1].ravel()[np.searchsorted(until, at, side="right")]


def _by_shard(found: dict[int, T]) -> list[T]:
    return [found[number] for number in sorted(found)]


def _check_goes_on(
    source: Source, earlier: Earlier | None, seen: Look, users: pl.Series, times: dict[str, float]
) -> None:
    """Says where ids of the log are not as an earlier preparation or the file of items writes them.

    Raises: InputError where none of them is, or where times have another unit than earlier ones.
    """
    items, known = seen.items.values, source.items["item"]
    if source.compared and (warning := check_items_match(items, known, *source.compared)):
        say.warning(warning)
    if not earlier:
        return
    then = earlier.manifest.get("times")  # an earlier version kept none
    if "gap" in source.clicks and then and (problem := _other_times(then, times)):
        raise InputError(f"--like {earlier.folder}: {problem}, and the feature gap is a time; give times as there.")
    for name, ids, before in (("users", users, earlier.users), ("items", items, earlier.items)):
        if warning := check_ids_go_on(ids, before["value"], name, earlier.folder):
            say.warning(warning)


def _other_times(then: dict[str, float], now: dict[str, float]) -> str | None:
    """What is wrong where times have another unit than an earlier log's; None: nothing is."""
    if then["unit"] != now["unit"]:
        return f"times were {'dates' if then['unit'] > 1 else 'numbers'} there and are not here"
    larger = max(then["median"], now["median"]) / max(min(then["median"], now["median"]), 1)
    if now["unit"] == 1 and larger >= _OTHER_UNIT:
        return f"times are {now['median']:g} here and were {then['median']:g} there, as in another unit"
    return None


def _check_times(times: np.ndarray) -> None:
    """Raises: InputError where some are far from the others, which each part of a log by itself does not show."""
    values = pl.Series(times)
    far = far_from_today(values)
    if far is not None and far.any():
        raise InputError(
            f"The log has times such as {values.filter(far)[0]}, where others are as {values.filter(~far)[0]}; fill or "
            "drop rows whose time is not known, and write all in one form."
        )


def _check_form_of_since(since: float, times: np.ndarray) -> None:
    """Raises: InputError if it is in another unit or form than the log's times."""
    first, last = float(times.min()), float(times.max())
    if first >= _LEAST_DATE and (10 * since < first or since > 10 * last):
        raise InputError(
            f"--since {since:.0f}: the log's times are from {first:.0f} to {last:.0f}, in another unit or form; give "
            "it in theirs."
        )


def _tell_of_one_user(users: pl.Series, rows: np.ndarray) -> None:
    """Warns of a user with much of the log, as where nobody is known.

    rows: (U,) of each.
    """
    share = rows.max(initial=0) / max(rows.sum(), 1)
    if len(users) >= _SOME_USERS and share > _NOBODY:
        say.warning(
            f"User {users[int(rows.argmax())]!r} has {share:.0%} of all interactions; if that means that nobody is "
            "known, drop these rows: they are learned as one user's history."
        )


def _tell_of_alike_values(vocabularies: dict[str, pl.DataFrame]) -> None:
    """Warns of values that are different ones, and seem to mean the same."""
    for name, values in vocabularies.items():
        if found := alike_categories(values["value"]):
            say.warning(f"Column {name} has {found}: they are taken for different values.")


def _tell_of_new_values(totals: Totals) -> None:
    """Says what share of the values an earlier preparation does not know."""
    for name, new in totals.new_values.items():
        if new:
            share = new / totals.known_values[name]
            tell = say.warning if share >= _MANY_NEW else say.info
            example = totals.example[name].values[0]
            tell(f"{share:.1%} of the values of {name} are new, such as {example!r}; they count as unknown.")


def _new_values(items: EncodedItems, item_ids: pl.DataFrame, earlier: Earlier) -> dict[str, int]:
    counts = {"new_items": len(item_ids) - len(earlier.items), "new_tags": len(items.tags) - len(earlier.tags)}
    say.info(
        f"Numbered as {earlier.folder}: {len(earlier.items):,} items keep their numbers, {counts['new_items']:,} are "
        f"new; {counts['new_tags']:,} tags are new."
    )
    return counts


def _tell_of_ties(seen: Look) -> None:
    """Warns where many clicks have no order, as where times are dates."""
    if 20 * seen.tied > seen.clicks:
        say.warning(
            f"{seen.tied:,} of {seen.clicks:,} clicks are at the same time as another one of their user, as "
            "where times are dates. A history holds clicks of strictly earlier times, so such clicks are not in each "
            f"other's, and {seen.alone:,} clicks have no earlier one; give finer times if there are any."
        )


def _tell_of_short_histories(seen: Look, options: Options) -> None:
    """Says where much of a log becomes no sample."""
    if 20 * seen.short > seen.asked:
        share = f"{seen.short:,} of {seen.asked:,} interactions ({seen.short / seen.asked:.0%})"
        say.info(
            f"{share} are no samples: before them, their user had fewer clicks than --min-history "
            f"{options.least_history}. With a smaller one they are; with 0, users who never clicked are scored, too, "
            "by the item and the row's columns."
        )


def _check_rows(totals: Totals, options: Options) -> None:
    """Raises: InputError if a split has no samples, or, with the log's own labels, only one kind of them."""
    for name, samples, clicked in zip(SPLITS, totals.samples, totals.clicked, strict=True):
        if not samples:
            raise InputError(
                f"--split {options.split} leaves no rows for {name}; choose another split, larger shares "
                "(--valid, --test), or a smaller --min-history."
            )
        if options.negatives is None and clicked in (0, samples):
            raise InputError(
                f"Every label of {name} is {int(clicked > 0)}; choose another split or larger shares, "
                "or let non-clicks be sampled with --negatives NUMBER."
            )


def _all_values(number: np.ndarray, values: pl.Series, count: np.ndarray) -> pl.DataFrame:
    """The vocabulary of everything that has a number, however rare."""
    frame = pl.DataFrame({"id": number, "value": values.cast(pl.String), "count": count.astype(np.int64)})
    return frame.filter(pl.col("id") > 0).sort("id")
