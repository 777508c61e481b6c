"""The pictures of the page. Train, valid and test have the same colours everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes

from mmctr_jax.pages.html import figure

_COLOURS = {"train": "C0", "valid": "C1", "test": "C2"}


def length_histogram(histories: dict[str, Any]) -> str:
    def draw(axes: Axes) -> None:
        ends = [b["up_to"] for b in max((h["bins"] for h in histories.values()), key=len)]
        labels = [str(end) if end < 3 else f"{end // 2 + 1}–{end}" for end in ends]
        width = 0.8 / len(histories)
        for i, (name, found) in enumerate(histories.items()):
            rows = sum(b["rows"] for b in found["bins"])
            shares = [100 * b["rows"] / rows for b in found["bins"]]
            places = [x + (i - (len(histories) - 1) / 2) * width for x in range(len(shares))]
            axes.bar(places, shares, width, color=_COLOURS[name], label=name)
        axes.set_xticks(range(len(labels)), labels, rotation=45 if len(labels) > 6 else 0)
        axes.grid(False, axis="x")
        axes.set(title="History lengths", xlabel="clicks in the history", ylabel="% of rows")
        _legend(axes)

    return figure(draw, "Bar chart: share of the rows by length of the history, per split")


def popularity_curve(popularity: dict[str, Any]) -> str:
    def draw(axes: Axes) -> None:
        ranks = [p["rank"] for p in popularity["curve"]]
        for key, label, style in (("clicks", "clicks (label 1)", "-"), ("rows", "rows as target", "--")):
            values = [_or_nan(p[key] or None) for p in popularity["curve"]]  # a logarithm has no place for 0
            axes.plot(ranks, values, style, color="C0", label=label)
        axes.set(xscale="log", yscale="log", title="Popularity in train", xlabel="rank of the item", ylabel="rows")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,.0f}")
            axis.set_minor_formatter("")
        axes.legend()

    return figure(draw, "Line chart, both axes logarithmic: clicks and rows of each item by its rank")


def level_means(level: dict[str, Any], label_means: dict[str, float]) -> str:
    """Label mean by value; the dotted lines are the splits' overall means."""

    def draw(axes: Axes) -> None:
        entries = level["values"]
        for name, overall in label_means.items():
            means = [_or_nan(e["splits"][name]["label_mean"]) for e in entries]
            axes.plot(range(len(entries)), means, "o-", color=_COLOURS[name], markersize=3, label=name)
            axes.axhline(overall, color=_COLOURS[name], linestyle=":", linewidth=1)
        step = -(-len(entries) // 12)  # a label for each is too many
        places = range(0, len(entries), step)
        axes.set_xticks(places, [str(entries[i]["value"]) for i in places])
        axes.set(title=f"Label mean by {_short(level['feature'])}", xlabel="value", ylabel="label mean")
        _legend(axes)

    return figure(draw, f"Line chart: label mean by value of {level['feature']}, per split")


def auc_chart(records: list[dict[str, Any]], splits: list[str]) -> str:
    def draw(axes: Axes) -> None:
        for i, name in enumerate(splits):
            areas = [record[name]["auc"] for record in records]
            places = [row + 0.2 * (i - (len(splits) - 1) / 2) for row in range(len(records))]  # or dots hide each other
            axes.plot([_or_nan(a) for a in areas], places, "o", color=_COLOURS[name], markersize=4, label=name)
        axes.axvline(0.5, color="0.5", linewidth=1)
        axes.set_yticks(range(len(records)), [_short(r["feature"]) for r in records])
        axes.set_ylim(len(records) - 0.5, -0.5)
        axes.set(xlabel="AUC")
        axes.set_title("AUC of single features", loc="right")  # the labels leave little room for it above the axes
        _legend(axes)

    return figure(
        draw, "Dot chart: AUC of each feature alone, per split; the table has the numbers", 1.2 + 0.24 * len(records)
    )


def drift_means(found: dict[str, Any], name: str) -> str:
    def draw(axes: Axes) -> None:
        features = found["features"][:10]
        axes.barh(range(len(features)), [f["drop"] or 0 for f in features], color=_COLOURS[name])
        axes.set_yticks(range(len(features)), [_short(f["feature"]) for f in features])
        axes.set_ylim(len(features) - 0.5, -0.5)
        axes.grid(False, axis="y")
        axes.set(xlabel="AUC lost without the feature")
        axes.set_title(f"What tells {name} from train", loc="right")

    rows = min(len(found["features"]), 10)
    return figure(
        draw, f"Bar chart: what the AUC loses when a feature is shuffled, train against {name}", 1.2 + 0.24 * rows
    )


def norm_histogram(embedding: dict[str, Any]) -> str:
    histogram = embedding["norm"]["histogram"]
    return figure(
        _bars(histogram["edges"], histogram["items"], f"Norms of {_short(embedding['feature'])}", "norm"),
        f"Histogram: norms of the vectors in {embedding['feature']}",
    )


def tags_per_item(tags: dict[str, Any]) -> str:
    def draw(axes: Axes) -> None:
        axes.bar(range(len(tags["per_item"])), tags["per_item"], color="C0")
        axes.grid(False, axis="x")
        axes.locator_params(axis="x", integer=True)
        axes.set(title=f"{_short(tags['feature'])}: ids per item", xlabel="ids", ylabel="items")

    return figure(draw, f"Bar chart: items by their number of ids in {tags['feature']}")


def _bars(edges: list[float], heights: list[int], title: str, label: str) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        axes.stairs(heights, edges, fill=True, color="C0")
        axes.set(title=title, xlabel=label, ylabel="items")

    return draw


def _legend(axes: Axes) -> None:
    """Below the picture, where it covers nothing."""
    axes.figure.legend(loc="outside lower center", ncols=3)


def _or_nan(value: float | None) -> float:
    """A gap in the picture where there is no value."""
    return math.nan if value is None else value


def _short(name: str) -> str:
    """What fits beside an axis; the tables have the whole name."""
    return name if len(name) <= 34 else f"{name[:32]}…"
