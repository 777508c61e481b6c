"""The numbers → warnings: what would spoil a training or make its figures untrue, and what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from mmctr_jax.pages.html import count, decimal, percent
from mmctr_jax.pages.inspect.label_auc import POSITION, standard_error
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

Found = tuple[float, str]


def find_warnings(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """[{"check", "number", "text"}], in the order of importance. `measured` is what `measure` returns."""
    checks = (_alone, _gaps, _drift, _in_history, _repeats, _labels, _unseen, _vectors, _constant)
    return [
        {"check": check.__name__.strip("_"), "number": number, "text": text}
        for check in checks
        for number, text in check(measured)
    ]


def _beyond_chance(record: dict[str, Any]) -> bool:
    """Whether an AUC is further from 0.5 than scores that know nothing come."""
    positives, negatives = record["positives"], record["negatives"]
    return abs(record["auc"] - 0.5) >= MARGIN * standard_error(0.5, positives, negatives)


def _alone(measured: dict[str, Any]) -> Iterator[Found]:
    for record in measured["label_auc"]:
        areas = {
            name: record[name]["auc"]
            for name in measured["splits"]
            if name in record and record[name]["auc"] is not None and _beyond_chance(record[name])
        }
        if max(areas.values(), default=0) < ALONE:
            continue
        listed = ", ".join(f"{decimal(area)} in {name}" for name, area in areas.items())
        if record["feature"] == POSITION:
            advice = "shuffle the rows, and use their order for nothing"
            yield max(areas.values()), f"The order of the rows gives the label away (AUC {listed}); {advice}."
        else:
            advice = "find out whether it is made from the label; if so, leave it out"
            yield (
                max(areas.values()),
                f"One feature alone predicts the label: {record['feature']} (AUC {listed}); {advice}.",
            )


def _gaps(measured: dict[str, Any]) -> Iterator[Found]:
    """Training's AUC counts from 0.5: below it, cross-fitting only shows that labels are balanced within a value."""
    for record in measured["label_auc"]:
        train, valid = record["train"], record["valid"]
        if record["feature"] in (USER, POSITION) or None in (train["auc"], valid["auc"]):
            continue
        fitted = max(train["auc"], 0.5)
        errors = [
            standard_error(auc, part["positives"], part["negatives"]) for auc, part in ((fitted, train), (0.5, valid))
        ]
        gap = fitted - valid["auc"]
        if abs(gap) >= max(AUC_GAP, MARGIN * math.hypot(*errors)):
            yield (
                abs(gap),
                f"Training and validation are differently distributed: {record['feature']} predicts the label with AUC "
                f"{decimal(fitted)} within train and {decimal(valid['auc'])} in valid; "
                "trust validation alone, and expect little from a feature that does not carry over.",
            )


def _drift(measured: dict[str, Any]) -> Iterator[Found]:
    for name, found in measured["drift"].items():
        area = found["auc"]
        if area is None or area < DRIFT:
            continue
        if area - 0.5 >= MARGIN * standard_error(0.5, found["rows"], found["train_rows"]):
            first = found["features"][0]
            means = f"mean {decimal(first['means']['train'])} in train, {decimal(first['means'][name])} in {name}"
            yield (
                area,
                f"A classifier tells rows of {name} from rows of train with AUC {decimal(area)}, most by "
                f"{first['feature']} ({means}); find out whether serving will differ so too, or an artefact does it.",
            )


def _in_history(measured: dict[str, Any]) -> Iterator[Found]:
    for name, found in measured["target_in_history"].items():
        if found["share"] > IN_HISTORY:
            means = ""
            if "label_mean" in found:
                means = f" (label mean {decimal(found['label_mean'])}, else {decimal(found['label_mean_of_others'])})"
            yield (
                found["share"],
                f"In {percent(found['share'])} of the rows of {name} the target stands in its own history{means}; "
                "a history must end before the click that is to be predicted.",
            )


def _repeats(measured: dict[str, Any]) -> Iterator[Found]:
    """Only where users are known: two users may well have clicked the same few items."""
    within, across = measured["repeats"]["within"], measured["repeats"]["across"]
    if "user" not in measured["repeats"]["by"]:
        return
    for found in across:
        split, of, share = found["split"], found["of"], found["repeated_share"]
        if share > REPEATED:
            yield (
                share,
                f"Rows of {split} that stand in {of} too (same user, history and target): {count(found['repeated'])} "
                f"({percent(share)}); drop them from {of}, or the figures on {split} are too good.",
            )
    for found in [*within, *across]:
        split, share = found["split"], found["contradicting_share"] or 0
        if share > REPEATED:
            yield (
                share,
                f"Rows of {split} that stand in {found.get('of', split)} with the other label: "
                f"{count(found['contradicting'])} ({percent(share)}); find out which is right, and drop the other.",
            )
    for found in within:
        split, share = found["split"], found["repeated_share"]
        if share > REPEATED_WITHIN:
            yield (
                share,
                f"Rows of {split} that repeat another row of it: {count(found['repeated'])} ({percent(share)}); "
                "drop them, or they count more than once.",
            )


def _labels(measured: dict[str, Any]) -> Iterator[Found]:
    train = measured["splits"]["train"]
    for name, found in measured["splits"].items():
        if name == "train" or found["label_mean"] is None:
            continue
        gap = found["label_mean"] - train["label_mean"]
        rows = train["rows"] + found["rows"]
        overall = (train["label_mean"] * train["rows"] + found["label_mean"] * found["rows"]) / rows
        error = math.sqrt(overall * (1 - overall) * (1 / train["rows"] + 1 / found["rows"]))
        if abs(gap) > max(LABEL_GAP, MARGIN * error):
            yield (
                abs(gap),
                f"The label mean is {decimal(train['label_mean'])} in train and {decimal(found['label_mean'])} in "
                f"{name}; AUC does not mind, but predicted probabilities will be off: sample negatives alike.",
            )


def _unseen(measured: dict[str, Any]) -> Iterator[Found]:
    share = measured["splits"]["valid"]["unseen_item_rows"]
    if share > UNSEEN:
        yield (
            share,
            f"{percent(share)} of the rows of valid have a target that training never sees, neither as target nor in a "
            "history; rely on tags and vectors rather than on item ids, and make sure that these items have them.",
        )


def _vectors(measured: dict[str, Any]) -> Iterator[Found]:
    for found in measured["embeddings"]:
        zero, equal = found["zero_share"], found["equal_share"]
        if zero > ZERO:
            first = ", ".join(map(str, found["zero_items"]))
            yield (
                zero,
                f"{count(found['zero'])} of {count(found['items'])} items ({percent(zero)}) have a zero vector in "
                f"{found['feature']} (first: {first}); give them texts or pictures to embed.",
            )
        if equal > EQUAL:
            yield (
                equal,
                f"{count(found['equal'])} of {count(found['items'])} items ({percent(equal)}) share their vector in "
                f"{found['feature']} with another item; look for texts that say nothing, or items listed twice.",
            )


def _constant(measured: dict[str, Any]) -> Iterator[Found]:
    for found in measured["constant"]:
        yield (
            found["value"],
            f"Column {found['column']} is {found['value']} in every row of {found['split']}; "
            "it says nothing there: drop it, or find out why.",
        )
    for found in measured["embeddings"]:
        if found["constant_dims"]:
            yield (
                found["constant_dims"],
                f"{count(found['constant_dims'])} of the {found['dim']} dimensions of {found['feature']} are the same "
                "in all items; they say nothing: embed anew, or with fewer dimensions.",
            )
    for found in measured["tags"]:
        if found["same_in_all_items"]:
            yield found["used"], f"Column {found['feature']} is the same in all items; it says nothing: drop it."
