"""The pictures of the page. A run has the same colour everywhere."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes

from mmctr_jax.pages.html import figure

_STYLES = ("-", "--", ":")  # for more runs than there are colours
_LONGEST = 24  # characters of a run's name
_TICKS = 8  # learning rates, at most


def _colour(run: int) -> str:
    return f"C{run % 10}"


def _style(run: int) -> str:
    return _STYLES[run // 10 % len(_STYLES)]


def labels_of(names: list[str]) -> list[str]:
    """What fits into a legend: the last part of each name, with a number where these would be the same."""
    short = [name if len(name) <= _LONGEST else f"…{name[1 - _LONGEST :]}" for name in names]
    if len(set(short)) < len(short):
        short = [f"{i}: {text}" for i, text in enumerate(short, 1)]
    return [f" {text}" if text.startswith("_") else text for text in short]  # legends leave out what begins with _


def curve(title: str, labels: list[str], curves: list[list[tuple[int, float]]]) -> str:
    """One quantity over the steps, a line per run."""
    validation, rate = title.startswith("validation"), title == "learning rate"

    def draw(axes: Axes) -> None:
        for i, points in enumerate(curves):
            if points:
                steps, values = zip(*points, strict=True)
                axes.plot(
                    steps,
                    values,
                    _style(i),
                    color=_colour(i),
                    marker="o" if validation else "",
                    markersize=3,
                    linewidth=1.2,
                    drawstyle="steps-post" if rate else "default",
                    label=labels[i],
                )
        axes.set(title=title.capitalize().replace("auc", "AUC"), xlabel="step", yscale="log" if rate else "linear")
        axes.locator_params(axis="x", nbins=6, integer=True)
        if rate:
            values = sorted({value for points in curves for _, value in points})
            shown = values[:: -(-len(values) // _TICKS) or 1]
            axes.set_yticks(shown, [f"{value:.3g}" for value in shown])
            axes.set_yticks([], minor=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        _legend(axes, len(labels))

    return figure(draw, f"Line chart: {title} over the steps, per run", _height(2.8, labels))


def roc(split: str, labels: list[str], numbers: list[int], runs: list[dict[str, Any]]) -> str:
    def draw(axes: Axes) -> None:
        for i, run in zip(numbers, runs, strict=True):
            if run["roc"]:
                axes.plot(*zip(*run["roc"], strict=True), _style(i), color=_colour(i), linewidth=1.2)
                axes.plot([], [], _style(i), color=_colour(i), label=labels[i])
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        axes.set(title=f"ROC, {split}", xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        _legend(axes, len(runs))

    return figure(draw, f"Line chart: receiver operating characteristic on {split}, per run", _height(3.4, runs))


def calibration(split: str, labels: list[str], numbers: list[int], runs: list[dict[str, Any]]) -> str:
    """Label mean over mean score, in bins; what is calibrated has a dashed line."""
    any_calibrated = any(run["calibrated"] for run in runs)

    def draw(axes: Axes) -> None:
        largest = 0.0
        for i, run in zip(numbers, runs, strict=True):
            for found, style in ((run["probabilities"], "o-"), (run["calibrated"], "s--")):
                if found:
                    x, y = [b["score"] for b in found["bins"]], [b["label"] for b in found["bins"]]
                    label = labels[i] + (", calibrated" if found is run["calibrated"] else "")
                    axes.plot(x, y, style, color=_colour(i), markersize=3, linewidth=1.2, label=label)
                    largest = max(largest, *x, *y)
        end = min(1.05 * largest, 1) or 1
        axes.plot([0, end], [0, end], color="0.6", linewidth=1)
        axes.set(title=f"Calibration, {split}", xlabel="mean score", ylabel="label mean", aspect="equal")
        _legend(axes, len(runs) * (1 + any_calibrated))

    entries = [*runs, *(runs if any_calibrated else [])]
    return figure(draw, f"Line chart: label mean by mean score on {split}, per run", _height(3.4, entries))


def histogram(title: str, run: dict[str, Any]) -> str:
    def draw(axes: Axes) -> None:
        for label, shares in enumerate(run["histogram"]["shares"]):
            if shares:
                percent = [100 * share for share in shares]
                axes.stairs(
                    percent, run["histogram"]["edges"], fill=True, alpha=0.45, color=f"C{label}", label=f"label {label}"
                )
        axes.set(title=title, xlabel="score", ylabel="% of the label's rows")
        _legend(axes, 2)

    return figure(draw, f"Histogram: {title}, the rows of each label apart", 2.8)


def slice_chart(split: str, labels: list[str], numbers: list[int], group: dict[str, Any], cut: dict[str, Any]) -> str:
    """AUC by slice: hollow where there is no interval. The dotted lines are the AUC of all rows."""

    def draw(axes: Axes) -> None:
        slices = cut["slices"]
        for place, i in enumerate(numbers):
            shift = 0.16 * (place - (len(numbers) - 1) / 2) * min(1, 5 / len(numbers))
            found = [(x + shift, s["runs"][place]["auc"]) for x, s in enumerate(slices) if s["runs"][place]["auc"]]
            for x, auc in found:
                if auc["interval"]:
                    axes.plot([x, x], auc["interval"], color=_colour(i), linewidth=1)
                else:
                    axes.plot(x, auc["value"], "o", color=_colour(i), markerfacecolor="w", markersize=4, zorder=3)
            known = [(x, auc["value"]) for x, auc in found if auc["interval"]]
            axes.plot(
                [x for x, _ in known], [y for _, y in known], "o", color=_colour(i), markersize=4, label=labels[i]
            )
            if overall := group["runs"][place]["auc"]:
                axes.axhline(overall["value"], color=_colour(i), linestyle=":", linewidth=1)
        ticks = [s["name"] for s in slices]
        axes.set_xticks(range(len(slices)), ticks, rotation=45 if sum(map(len, ticks)) > 30 else 0)
        axes.set_xlim(-0.6, len(slices) - 0.4)
        axes.grid(False, axis="x")
        axes.set(title=f"AUC, {split}", xlabel=cut["by"][:40], ylabel="AUC")
        _legend(axes, len(numbers))

    return figure(draw, f"Dot chart: AUC on {split} by {cut['by']}, with intervals, per run", _height(2.8, numbers))


def _legend(axes: Axes, entries: int) -> None:
    """Below the picture, where it covers nothing; none for a single line."""
    if entries > 1 and axes.get_legend_handles_labels()[0]:
        axes.figure.legend(loc="outside lower center", ncols=2)


def _height(height: float, entries: Any) -> float:
    """With room for the legend."""
    return height + 0.19 * (math.ceil(len(entries) / 2) if len(entries) > 1 else 0)
