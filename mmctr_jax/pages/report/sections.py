"""The numbers → the page. Nothing is computed here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmctr_jax.console import clock
from mmctr_jax.pages.html import beside, count, decimal, folded, notes, page, paragraph, preformatted, section, table
from mmctr_jax.pages.report import pictures

TITLE = "Report: "


def render(found: dict[str, Any]) -> str:
    """The whole page, from what `measure` returns."""
    found = found | {"labels": pictures.labels_of(found["names"])}
    parts = [notes(found["notes"])] if found["notes"] else []
    parts += [_runs(found), _curves(found), _metrics(found)]
    parts += [_pictures(found, split) + _slices(found, split) for split in found["splits"]]
    return page(f"{TITLE}{', '.join(found['names'])}", *parts)


def _runs(found: dict[str, Any]) -> str:
    runs = found["runs"]
    lines: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("state", lambda run: run["state"]),
        ("model", lambda run: run["model"]),
        ("parameters", lambda run: count(run["parameters"])),
        ("item features", lambda run: ", ".join(run["item_features"]) or "–"),
        ("side features", lambda run: ", ".join(run["side_features"]) or "–"),
        ("items", lambda run: count(run["items"])),
        ("users in train", lambda run: count(run["users"])),
    ]
    names = list(dict.fromkeys(name for run in runs for name in run["files"]))
    lines += [(name, lambda run, name=name: _file(run["files"].get(name))) for name in names]
    lines += [
        ("steps", lambda run: count(run["steps"])),
        ("epochs", lambda run: decimal(run["epochs"], 2)),
        ("best validation AUC", _best),
        ("scored with", lambda run: "–" if run["scored_step"] is None else f"step {count(run['scored_step'])}"),
        ("time at work", lambda run: "–" if run["seconds"] is None else clock(run["seconds"])),
        ("samples a second", lambda run: decimal(run["samples_per_second"], 0)),
        ("devices", _devices),
        ("precision", lambda run: run["precision"]),
        ("seed", lambda run: str(run["seed"])),
        ("git revision", lambda run: run["git"] or "–"),
        ("Python", lambda run: run["python"] or "–"),
        ("packages", lambda run: ", ".join(f"{name} {version}" for name, version in run["versions"].items()) or "–"),
    ]
    rows = [[text, *(show(run) for run in runs)] for text, show in lines]
    configs = [
        folded(f"config.yaml of {name}", preformatted(run["config"]))
        for name, run in zip(found["names"], runs, strict=True)
    ]
    return section("What was trained on what", table(["", *found["names"]], rows, breaks=True), *configs)


def _file(file: list[Any] | None) -> str:
    """Its last two names, for the room; the config has the path."""
    if file is None:
        return "–"
    path, rows = file
    text = "/".join(Path(path).parts[-2:])
    return text if rows is None else f"{text} ({count(rows)} rows)"


def _best(run: dict[str, Any]) -> str:
    return "–" if run["best_step"] is None else f"{_auc(run['best_auc'])} at step {count(run['best_step'])}"


def _devices(run: dict[str, Any]) -> str:
    devices = run["devices"]
    if not devices:
        return "–"
    hosts = f" on {devices['processes']} hosts" if devices["processes"] > 1 else ""
    return f"{devices['count']} × {devices['kind']}{hosts}"


def _curves(found: dict[str, Any]) -> str:
    if not any(any(curves.values()) for curves in found["curves"]):
        return section("Curves", paragraph("Nothing is recorded yet."))
    titles = found["curves"][0]
    drawn = [pictures.curve(title, found["labels"], [curves[title] for curves in found["curves"]]) for title in titles]
    return section("Curves", beside(*drawn))


def _auc(value: float | None) -> str:
    return decimal(value, 4)


def _with_interval(found: dict[str, Any] | None, signed: bool = False) -> str:
    """0.8011 [0.7893, 0.8125]"""
    if found is None:
        return "–"

    def show(value: float) -> str:
        return f"{value:+z.4f}" if signed else decimal(value, 4)

    ends = found["interval"]
    return show(found["value"]) + (f" [{show(ends[0])}, {show(ends[1])}]" if ends else "")


def _metrics(found: dict[str, Any]) -> str:
    if not found["splits"]:
        return section("Metrics", paragraph("Nothing is scored; the notes above say why."))
    parts = [
        paragraph(
            "In brackets: the 95 % interval, by bootstrap: rows are drawn anew with replacement, "
            f"{_draws(found)} times. The calibration error is the mean distance between mean score and label mean over "
            "15 bins of equal count; true probabilities have one too, by chance."
        )
    ]
    lines: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], str]]] = [
        ("AUC", lambda run, group: _with_interval(run["auc"])),
        ("grouped AUC", lambda run, group: _auc(run["gauc"])),
        ("logloss", lambda run, group: _with_interval(run["logloss"])),
        ("mean score", lambda run, group: _auc(run["probabilities"]["mean"])),
        ("label mean", lambda run, group: _auc(group["label_mean"])),
        ("calibration error", lambda run, group: _auc(run["probabilities"]["error"])),
        ("… to be expected by chance", lambda run, group: _auc(run["probabilities"]["error_by_chance"])),
    ]
    calibrated: list[tuple[str, Callable[[dict[str, Any], dict[str, Any]], str]]] = [
        ("logloss, calibrated", lambda run, group: _of_calibrated(run, "logloss")),
        ("mean score, calibrated", lambda run, group: _of_calibrated(run, "mean")),
        ("calibration error, calibrated", lambda run, group: _of_calibrated(run, "error")),
    ]
    for split, groups in found["splits"].items():
        columns = [(label, run, group) for group in groups for label, run in _labelled(found, group)]
        columns.sort(key=lambda column: found["labels"].index(column[0]))
        rows = [["rows", *(count(group["rows"]) for _, _, group in columns)]]
        shown = lines + (calibrated if any(run["calibrated"] for _, run, _ in columns) else [])
        rows += [[text, *(show(run, group) for _, run, group in columns)] for text, show in shown]
        parts.append(table([split, *(label for label, _, _ in columns)], rows))
        parts += [_differences(found, split, group) for group in groups if len(group["names"]) > 1]
    return section("Metrics", *parts)


def _draws(found: dict[str, Any]) -> str:
    draws = sorted({group["draws"] for groups in found["splits"].values() for group in groups})
    return " or ".join(map(count, draws))


def _of_calibrated(run: dict[str, Any], key: str) -> str:
    return "–" if run["calibrated"] is None else _auc(run["calibrated"][key])


def _numbers(found: dict[str, Any], group: dict[str, Any]) -> list[int]:
    """The places of a group's runs among all."""
    return [found["names"].index(name) for name in group["names"]]


def _labelled(found: dict[str, Any], group: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(found["labels"][i], run) for i, run in zip(_numbers(found, group), group["runs"], strict=True)]


def _differences(found: dict[str, Any], split: str, group: dict[str, Any]) -> str:
    (first, _), *others = _labelled(found, group)
    rows = [
        [label, _with_interval(run["auc_more"], True), _with_interval(run["logloss_more"], True)]
        for label, run in others
    ]
    return table([split, "AUC", "logloss"], rows, f"More than {first}, by the same draws for both")


def _pictures(found: dict[str, Any], split: str) -> str:
    parts = []
    for group in found["splits"][split]:
        numbers = _numbers(found, group)
        if any(run["roc"] for run in group["runs"]):
            parts.append(pictures.roc(split, found["labels"], numbers, group["runs"]))
        parts.append(pictures.calibration(split, found["labels"], numbers, group["runs"]))
        for label, run in _labelled(found, group):
            of = f": {label}" if len(found["names"]) > 1 else ""
            parts.append(pictures.histogram(f"Scores, {split}{of}", run))
    return section(f"ROC, calibration and scores: {split}", beside(*parts))


def _slices(found: dict[str, Any], split: str) -> str:
    parts = [
        paragraph(
            "A history's length is that of all clicks in the row, however many the model sees. An item is known if it "
            "is a target in train or stands in a history there. A dash: all labels are the same. No interval, and "
            "hollow in the picture: too few rows of a label. Where the AUC is 1, its interval says little: draws make "
            "no mistake that the rows do not."
        )
    ]
    for group in found["splits"][split]:
        labels, charts, tables = [label for label, _ in _labelled(found, group)], [], []
        headers = ["rows", *labels, *(f"{label}, more than {labels[0]}" for label in labels[1:])]
        for cut in group["slices"]:
            rows = [
                [
                    one["name"],
                    count(one["rows"]),
                    *(_with_interval(run["auc"]) for run in one["runs"]),
                    *(_with_interval(run["auc_more"], True) for run in one["runs"][1:]),
                ]
                for one in cut["slices"]
            ]
            left = f" ({count(cut['left_out'])} rarer values are left out)" if cut["left_out"] else ""
            charts.append(pictures.slice_chart(split, found["labels"], _numbers(found, group), group, cut))
            tables.append(table([cut["unit"], *headers], rows, f"AUC by {cut['by']}{left}"))
        if len(labels) > 1:  # tables too wide for half the page
            parts += [beside(*charts), *tables]
        else:
            parts += [beside(*both) for both in zip(charts, tables, strict=True)]
    return section(f"AUC by slices: {split}", *parts)
