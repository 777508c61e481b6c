"""The page: what is in the data, as inspect.html and, with the same numbers, inspect.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from mmctr_jax.console import log
from mmctr_jax.errors import InputError
from mmctr_jax.features.summaries import IdSummary, VectorSummary
from mmctr_jax.formats import count, decimal, lines, percent
from mmctr_jax.pages import bins, html
from mmctr_jax.pages.figures import colour, figure, or_gap, rows_of, shifts, short, tick_names
from mmctr_jax.pages.html import beside, folded, paragraph, section
from mmctr_jax.pages.inspect.drift import Drift, DriftFeature
from mmctr_jax.pages.inspect.folder import read_folder
from mmctr_jax.pages.inspect.label_auc import LabelAuc
from mmctr_jax.pages.inspect.numbers import Inspection, SideFeature, ValueFacts, measure
from mmctr_jax.pages.inspect.rows import OwnHistory, Repeated
from mmctr_jax.pages.inspect.warn import Warning, find_warnings
from mmctr_jax.pages.output import check_writable, write_files

_ADVICE = "name another folder with --out"
_LEFT_OUT = {"users", "rows_per_user", "unseen_users", "unseen_user_rows", "share_of_label", "test", "every", "of"}
_DRIFT_BARS = 10  # features, at most


def inspect(folder: Path, config: Path | None, out: Path) -> tuple[Inspection, list[Warning]]:
    """Measures the data in `folder`, writes inspect.html and inspect.json to `out`, and returns what they show.

    Columns are those of `config`; without one, of the one that prepare wrote, else the default ones that are there.
    Raises: InputError where data, config or `out` cannot be used; nothing is written then.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one with train.parquet, valid.parquet and item_info.parquet.")
    check_writable(out, _ADVICE)
    found = measure(read_folder(folder, config))
    warnings = find_warnings(found)
    write_files(out, _ADVICE, {"inspect.json": to_json(found, warnings), "inspect.html": render(found, warnings)})
    for warning in warnings:
        log.warning(f"Warning: {warning.text}")
    if not warnings:
        log.info("Nothing to warn about.")
    log.info(f"The page is {out / 'inspect.html'}; its numbers are in inspect.json beside it.")
    return found, warnings


def to_json(found: Inspection, warnings: list[Warning]) -> str:
    """Null is what is not defined; what does not concern a record is left out of it."""

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if value is not None or name not in _LEFT_OUT}

    numbers = {"warnings": [asdict(warning) for warning in warnings]} | asdict(found, dict_factory=fields)
    return json.dumps(numbers, indent=1, allow_nan=False) + "\n"


def render(found: Inspection, warnings: list[Warning]) -> str:
    """The whole page. Nothing is computed here."""
    sections = (_splits, _histories, _popularity, _side_features, _aucs, _drift, _repeats, _vectors, _ids)
    return html.page(f"Data: {found.name}", _warnings(warnings), *(part(found) for part in sections))


def _warnings(warnings: list[Warning]) -> str:
    if not warnings:
        return section("Warnings", paragraph("Nothing to warn about."))
    return section(f"Warnings ({len(warnings)})", html.notes(warning.text for warning in warnings))


def _splits(found: Inspection) -> str:
    text = "An item is seen in train if it is a target there or stands in a history there."
    return section("Splits", html.compared(found.splits), paragraph(text))


def _histories(found: Inspection) -> str:
    histories = found.histories
    ends = [b.up_to for b in max((h.bins for h in histories.values()), key=len)]

    def draw(axes: Axes) -> None:
        width = 0.8 / len(histories)
        for (name, h), shift in zip(histories.items(), shifts(len(histories), width), strict=True):
            shares = [100 * b.rows / found.splits[name].rows for b in h.bins]
            axes.bar([x + shift for x in range(len(shares))], shares, width, color=colour(name), label=name)
        tick_names(axes, bins.names(ends))

    alt = "Bar chart: share of the rows by length of the history, per split"
    chart = figure(draw, alt, title="History lengths", xlabel="clicks in the history", ylabel="% of rows")
    rows = {
        f"up to {end}": lambda h, i=i: count(h.bins[i].rows if i < len(h.bins) else 0) for i, end in enumerate(ends)
    }
    text = (
        "Padding is the share of all positions that holds no click. With buckets, a row is padded to the first of "
        "1, 2, 3, 4, 6, 8, 12, 16, … that holds it; shown is what is left of the positions then."
    )
    return section(
        "Histories",
        beside(chart, html.compared(histories, corner="clicks in the history")),
        folded("Rows by length", html.compared(histories, rows, corner="clicks")),
        html.records(found.padding, "What padding costs in train"),
        paragraph(text),
    )


def _popularity(found: Inspection) -> str:
    popularity = found.popularity

    def draw(axes: Axes) -> None:
        ranks = [p.rank for p in popularity.curve]  # a logarithm has no place for 0
        axes.plot(ranks, or_gap([p.clicks or None for p in popularity.curve]), "-", label="clicks (label 1)")
        axes.plot(ranks, or_gap([p.rows or None for p in popularity.curve]), "--", color="C0", label="rows as target")
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,.0f}")
            axis.set_minor_formatter("")

    alt = "Line chart, both axes logarithmic: clicks and rows of each item by its rank"
    chart = figure(draw, alt, title="Popularity in train", xlabel="rank of the item", ylabel="rows")
    text = (
        f"{count(popularity.items)} items have {count(popularity.clicks)} clicks in train. The top 1 % of them hold "
        f"{percent(popularity.top_1_percent)} of the clicks, the top 10 % hold {percent(popularity.top_10_percent)}; "
        f"{count(popularity.without_click)} items have none."
    )
    points = folded("The curve's numbers", html.records(popularity.curve))
    return section("Popularity", paragraph(text), beside(chart), points)


def _side_features(found: Inspection) -> str:
    if not found.levels:
        return ""
    means = {name: s.label_mean for name, s in found.splits.items() if s.label_mean is not None}
    parts = [beside(*(_label_means(side, means) for side in found.levels))]
    for side in found.levels:
        columns = lines(ValueFacts)
        for name in found.splits:
            columns[f"{name}: rows"] = lambda v, name=name: count(v.splits[name].rows)
            if name in means:
                columns[f"{name}: label mean"] = lambda v, name=name: decimal(v.splits[name].label_mean)
        left = side.distinct - len(side.values)
        title = side.feature + (f": the most frequent values, {count(left)} more are left out" if left else "")
        parts.append(folded(title, html.records(side.values, columns=columns)))
    return section("Side features against the label", *parts)


def _label_means(side: SideFeature, label_means: dict[str, float]) -> str:
    """Label mean by value; the dotted lines are the splits' overall means."""

    def draw(axes: Axes) -> None:
        for name, overall in label_means.items():
            means = or_gap([v.splits[name].label_mean for v in side.values])
            axes.plot(range(len(means)), means, "o-", color=colour(name), markersize=3, label=name)
            axes.axhline(overall, color=colour(name), linestyle=":", linewidth=1)
        places = range(0, len(side.values), -(-len(side.values) // 12))  # a label for each is too many
        axes.set_xticks(places, [str(side.values[i].value) for i in places])

    alt = f"Line chart: label mean by value of {side.feature}, per split"
    return figure(draw, alt, title=f"Label mean by {short(side.feature)}", xlabel="value", ylabel="label mean")


def _aucs(found: Inspection) -> str:
    features, splits = found.label_auc, list(found.label_auc[0].splits)

    def draw(axes: Axes) -> None:
        for name, shift in zip(splits, shifts(len(splits), 0.2), strict=True):
            places = [row + shift for row in range(len(features))]
            axes.plot(or_gap([f.splits[name].auc for f in features]), places, "o", c=colour(name), ms=4, label=name)
        axes.axvline(0.5, color="0.5", linewidth=1)
        rows_of(axes, [f.feature for f in features], "AUC of single features")

    alt = "Dot chart: AUC of each feature alone, per split; the table has the numbers"
    chart = figure(draw, alt, 1.0 + 0.24 * len(features), xlabel="AUC")
    areas = {name: lambda f, name=name: decimal(f.splits[name].auc) for name in splits}
    sizes = ", ".join(f"{count(n)} rows of {name}" for name, n in found.sample.rows.items())
    orders = ", ".join(
        f"{f'remainder by {n}' if n else 'parts of the file'} in {name}" for name, n in features[-1].every.items()
    )
    text = (
        "Each value of a feature (numbers in up to 32 quantile bins) stands for its smoothed label mean: within train "
        "cross-fitted over two random halves, in valid and test as train has it. Below 0.5 within train, labels are "
        "balanced within each value, such as a positive and a negative for each click of a user. All rows are counted; "
        f"cosines and the next section are of a random sample: {sizes}. The order of the rows is cross-fitted in each "
        f"split, and its strongest pattern is shown ({orders})."
    )
    both = beside(chart, html.records(features, columns=lines(LabelAuc) | areas))
    return section("What a single feature says about the label", paragraph(text), both)


def _drift(found: Inspection) -> str:
    text = (
        "A gradient-boosted classifier learns to tell the rows of a split from those of train; AUC 0.5 means that it "
        "cannot. It sees the features above but for ids and row order; a user's rows are in one fold of three."
    )
    tables = []
    for name, drift in found.drift.items():
        means = {f"mean in {split}": lambda f, split=split: decimal(f.means[split]) for split in ("train", name)}
        title = f"{name} against train: AUC {decimal(drift.auc)}"
        tables.append(html.records(drift.features, title, lines(DriftFeature) | means))
    charts = [_drift_chart(drift, name) for name, drift in found.drift.items()]
    return section("Drift between splits", paragraph(text), beside(*charts), *tables)


def _drift_chart(drift: Drift, name: str) -> str:
    features = drift.features[:_DRIFT_BARS]

    def draw(axes: Axes) -> None:
        axes.barh(range(len(features)), [f.drop or 0 for f in features], color=colour(name))
        rows_of(axes, [f.feature for f in features], f"What tells {name} from train")
        axes.grid(False, axis="y")

    alt = f"Bar chart: what the AUC loses when a feature is shuffled, train against {name}"
    return figure(draw, alt, 1.2 + 0.24 * len(features), xlabel="AUC lost without the feature")


def _repeats(found: Inspection) -> str:
    of_label = {f"of label {i}": lambda own, i=i: percent(own.share_of_label and own.share_of_label[i]) for i in (0, 1)}
    own = html.compared(found.target_in_history, lines(OwnHistory) | of_label, "The target stands in its own history")
    repeats = found.repeats
    where = {"rows of": lambda r: f"{r.split}, in {r.of}" if r.of else r.split}
    equal = html.records([*repeats.within, *repeats.across], "Equal rows", where | lines(Repeated))
    text = f"Rows are equal if {', '.join(repeats.by[:-1])} and {repeats.by[-1]} are."
    return section("Rows that repeat, contradict, or hold their answer", own, equal, paragraph(text))


def _vectors(found: Inspection) -> str:
    if not found.embeddings:
        return ""
    zero = [
        paragraph(f"Items with a zero vector in {v.feature}, the first: {', '.join(map(str, v.zero_items))}.")
        for v in found.embeddings
        if v.zero
    ]
    charts = [_norm_histogram(v) for v in found.embeddings if v.norm]
    return section("Vectors", beside(*charts), html.records(found.embeddings), *zero)


def _norm_histogram(vectors: VectorSummary) -> str:
    histogram = vectors.norm.histogram
    return figure(
        lambda axes: axes.stairs(histogram.items, histogram.edges, fill=True, color="C0"),
        f"Histogram: norms of the vectors in {vectors.feature}",
        title=f"Norms of {short(vectors.feature)}",
        xlabel="norm",
        ylabel="items",
    )


def _ids(found: Inspection) -> str:
    if not found.tags:
        return ""
    lists = [folded(f"{t.feature}: most used", html.records(t.most_used)) for t in found.tags]
    charts = [_ids_per_item(t) for t in found.tags if len(t.per_item) > 2]
    return section("Tags and categories", beside(*charts), html.records(found.tags), *lists)


def _ids_per_item(ids: IdSummary) -> str:
    def draw(axes: Axes) -> None:
        axes.bar(range(len(ids.per_item)), ids.per_item, color="C0")
        axes.grid(False, axis="x")
        axes.locator_params(axis="x", integer=True)

    alt = f"Bar chart: items by their number of ids in {ids.feature}"
    return figure(draw, alt, title=f"{short(ids.feature)}: ids per item", xlabel="ids", ylabel="items")
