"""The numbers → warnings: what would spoil a training or make its figures untrue, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mmctr_jax.formats import count, decimal, percent
from mmctr_jax.pages.inspect.label_auc import POSITION, Auc
from mmctr_jax.pages.inspect.numbers import Inspection
from mmctr_jax.pages.inspect.row_features import USER

# A difference must be this many standard errors wide, so that small data raises no false alarm by chance: with a dozen
# features in three splits, four standard errors are passed by chance once in hundreds of data sets.
MARGIN = 4.0
ALONE = 0.9  # AUC of one feature; honest single features of click data reach 0.6 to 0.8
AUC_GAP = 0.1  # between training and validation, of one feature; more than models of this kind differ by
DRIFT = 0.65  # AUC; a split by time gives some, as histories grow: 0.6 is little, and 0.8 another population
IN_HISTORY = 0.001  # share of rows; people do click twice, now and then
REPEATED = 0.001  # share of a split's rows that stand in an earlier split, or contradict another row
REPEATED_WITHIN = 0.01  # share of rows; sampled negatives may meet by chance
UNSEEN = 0.2  # share of validation rows whose target has an untrained id vector
LABEL_GAP = 0.05  # between label means
ZERO = 0.01  # share of items without a vector
EQUAL = 0.05  # share of items whose vector another has too

Found = Iterator[tuple[float, str, str]]  # the number that is amiss, what it is of, and what to do about it


@dataclass(frozen=True)
class Warning:
    """A sentence, the number it is about, and the name of the check that found it."""

    check: str
    number: float
    text: str


def find_warnings(found: Inspection) -> list[Warning]:
    """In the order of importance."""
    checks = (_alone, _gaps, _drift, _in_history, _repeats, _labels, _unseen, _vectors, _constant)
    return [
        Warning(check.__name__.strip("_"), number, f"{what}; {advice}.")
        for check in checks
        for number, what, advice in check(found)
    ]


def _alone(found: Inspection) -> Found:
    for feature in found.label_auc:
        known = {name: of for name, of in feature.splits.items() if of.auc is not None}
        # Scores that know nothing come nearly as far from 0.5 as that by chance.
        areas = {name: of.auc for name, of in known.items() if abs(of.auc - 0.5) >= MARGIN * of.error()}
        highest, listed = max(areas.values(), default=0), ", ".join(f"{decimal(a)} in {n}" for n, a in areas.items())
        if highest >= ALONE and feature.feature == POSITION:
            what = f"The order of the rows gives the label away (AUC {listed})"
            yield highest, what, "shuffle the rows, and use their order for nothing"
        elif highest >= ALONE:
            what = f"One feature alone predicts the label: {feature.feature} (AUC {listed})"
            yield highest, what, "find out whether it is made from the label; if so, leave it out"


def _gaps(found: Inspection) -> Found:
    """Training's AUC counts from 0.5: below it, cross-fitting only shows that labels are balanced within a value."""
    for feature in found.label_auc:
        train, valid = feature.train, feature.valid
        if feature.feature in (USER, POSITION) or None in (train.auc, valid.auc):
            continue
        fitted = max(train.auc, 0.5)
        gap = abs(fitted - valid.auc)
        if gap >= max(AUC_GAP, MARGIN * math.hypot(train.error(fitted), valid.error())):
            areas = f"AUC {decimal(fitted)} within train and {decimal(valid.auc)} in valid"
            predicts = f"{feature.feature} predicts the label with {areas}"
            advice = "trust validation alone, and expect little from a feature that does not carry over"
            yield gap, f"Training and validation are differently distributed: {predicts}", advice


def _drift(found: Inspection) -> Found:
    for name, drift in found.drift.items():
        error = Auc(None, drift.rows, drift.train_rows).error()
        if drift.auc is not None and drift.auc >= max(DRIFT, 0.5 + MARGIN * error):
            first, area = drift.features[0], decimal(drift.auc)
            means = f"mean {decimal(first.means['train'])} in train, {decimal(first.means[name])} in {name}"
            what = f"A classifier tells rows of {name} from rows of train with AUC {area}, most by {first.feature}"
            yield drift.auc, f"{what} ({means})", "find out whether serving will differ so too, or an artefact does it"


def _in_history(found: Inspection) -> Found:
    for name, own in found.target_in_history.items():
        means = f" (label mean {decimal(own.label_mean)}, otherwise {decimal(own.label_mean_of_others)})"
        if own.share > IN_HISTORY:
            what = f"In {percent(own.share)} of the rows of {name} the target stands in its own history"
            advice = "a history must end before the click that is to be predicted"
            yield own.share, what + (means if own.share_of_label else ""), advice


def _repeats(found: Inspection) -> Found:
    """Only where users are known: two users may well have clicked the same few items."""
    if "user" not in found.repeats.by:
        return
    within, across = found.repeats.within, found.repeats.across
    for r in (r for r in across if r.repeated_share > REPEATED):
        what = f"Rows of {r.split} that stand in {r.of} too (same user, history and target)"
        advice = f"drop them from {r.of}, or the figures on {r.split} are too good"
        yield r.repeated_share, f"{what}: {count(r.repeated)} ({percent(r.repeated_share)})", advice
    for r in (r for r in [*within, *across] if (r.contradicting_share or 0) > REPEATED):
        what = f"Rows of {r.split} that stand in {r.of or r.split} with the other label"
        number = f"{count(r.contradicting)} ({percent(r.contradicting_share)})"
        yield r.contradicting_share, f"{what}: {number}", "find out which is right, and drop the other"
    for r in (r for r in within if r.repeated_share > REPEATED_WITHIN):
        number = f"{count(r.repeated)} ({percent(r.repeated_share)})"
        what = f"Rows of {r.split} that repeat another row of it: {number}"
        yield r.repeated_share, what, "drop them, or they count more than once"


def _labels(found: Inspection) -> Found:
    train = found.splits["train"]
    for name, split in found.splits.items():
        if split.label_mean is None:
            continue
        gap = abs(split.label_mean - train.label_mean)
        overall = (train.label_mean * train.rows + split.label_mean * split.rows) / (train.rows + split.rows)
        error = math.sqrt(overall * (1 - overall) * (1 / train.rows + 1 / split.rows))
        if gap > max(LABEL_GAP, MARGIN * error):
            what = f"The label mean is {decimal(train.label_mean)} in train and {decimal(split.label_mean)} in {name}"
            advice = "AUC does not mind, but predicted probabilities will be off: sample negatives alike"
            yield gap, what, advice


def _unseen(found: Inspection) -> Found:
    share = found.splits["valid"].unseen_item_rows
    if share > UNSEEN:
        unseen = "a target that training never sees, neither as target nor in a history"
        advice = "rely on tags and vectors rather than on item ids, and make sure that these items have them"
        yield share, f"{percent(share)} of the rows of valid have {unseen}", advice


def _vectors(found: Inspection) -> Found:
    for e in found.embeddings:
        if e.zero_share > ZERO:
            what = f"{count(e.zero)} of {count(e.items)} items ({percent(e.zero_share)}) have a zero vector in"
            first = ", ".join(map(str, e.zero_items))
            yield e.zero_share, f"{what} {e.feature} (first: {first})", "give them texts or pictures to embed"
        if e.equal_share > EQUAL:
            what = f"{count(e.equal)} of {count(e.items)} items ({percent(e.equal_share)}) share their vector in"
            advice = "look for texts that say nothing, or items listed twice"
            yield e.equal_share, f"{what} {e.feature} with another item", advice


def _constant(found: Inspection) -> Found:
    for c in found.constant:
        what = f"Column {c.column} is {c.value} in every row of {c.split}"
        yield c.value, what, "it says nothing there: drop it, or find out why"
    for e in (e for e in found.embeddings if e.constant_dims):
        what = f"{count(e.constant_dims)} of the {e.dim} dimensions of {e.feature} are the same in all items"
        yield e.constant_dims, what, "they say nothing: embed anew, or with fewer dimensions"
    for t in (t for t in found.tags if t.same_in_all_items):
        yield t.used, f"Column {t.feature} is the same in all items", "it says nothing: drop it"
