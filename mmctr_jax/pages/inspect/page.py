"""The page: what is in the data, as inspect.html and, with the same numbers, inspect.json."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib import rc_context

from mmctr_jax.console import log
from mmctr_jax.errors import InputError
from mmctr_jax.formats import count, decimal, lines, percent
from mmctr_jax.pages import bins, html
from mmctr_jax.pages.figures import STYLE, colour, empty_axes, picture, rows_of, shifts, short, tick_names
from mmctr_jax.pages.html import beside, folded, paragraph, section
from mmctr_jax.pages.inspect.drift import DriftFeature
from mmctr_jax.pages.inspect.folder import read_folder
from mmctr_jax.pages.inspect.label_auc import LabelAuc
from mmctr_jax.pages.inspect.numbers import Inspection, ValueFacts, measure
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


@rc_context(STYLE)
def render(found: Inspection, warnings: list[Warning]) -> str:
    """The whole page. Nothing is computed here."""
    title = f"Warnings ({len(warnings)})" if warnings else "Warnings"
    texts = html.notes(w.text for w in warnings) if warnings else paragraph("Nothing to warn about.")
    sections = (_splits, _histories, _popularity, _side_features, _aucs, _drift, _repeats, _vectors, _ids)
    return html.page(f"Data: {found.name}", section(title, texts), *(part(found) for part in sections))


def _splits(found: Inspection) -> str:
    text = "An item is seen in train if it is a target there or stands in a history there."
    return section("Splits", html.compared(found.splits), paragraph(text))


def _histories(found: Inspection) -> str:
    histories = found.histories
    ends = [b.up_to for b in max((h.bins for h in histories.values()), key=len)]
    axes, width = empty_axes(), 0.8 / len(histories)
    for (name, h), shift in zip(histories.items(), shifts(len(histories), width), strict=True):
        shares = [100 * b.rows / found.splits[name].rows for b in h.bins]
        axes.bar([x + shift for x in range(len(shares))], shares, width, color=colour(name), label=name)
    tick_names(axes, bins.names(ends))
    chart = picture(axes, title="History lengths", xlabel="clicks in the history", ylabel="% of rows")
    rows = {
        f"up to {end}": lambda h, i=i: count(h.bins[i].rows if i < len(h.bins) else 0) for i, end in enumerate(ends)
    }
    text = """Padding is the share of all positions that holds no click. With buckets, a row is padded to the first of
    1, 2, 3, 4, 6, 8, 12, 16, … that holds it; shown is what is left of the positions then."""
    return section(
        "Histories",
        beside(chart, html.compared(histories, corner="clicks in the history")),
        folded("Rows by length", html.compared(histories, rows, corner="clicks")),
        html.records(found.padding, "What padding costs in train"),
        paragraph(text),
    )


def _popularity(found: Inspection) -> str:
    popularity, axes = found.popularity, empty_axes()
    ranks = [p.rank for p in popularity.curve]  # a logarithm has no place for 0
    axes.plot(ranks, [p.clicks or None for p in popularity.curve], "-", label="clicks (label 1)")
    axes.plot(ranks, [p.rows or None for p in popularity.curve], "--", color="C0", label="rows as target")
    axes.set(xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_formatter("")
    chart = picture(axes, title="Popularity in train", xlabel="rank of the item", ylabel="rows")
    text = f"""{count(popularity.items)} items have {count(popularity.clicks)} clicks in train. The top 1 % of them hold
    {percent(popularity.top_1_percent)} of the clicks, the top 10 % hold {percent(popularity.top_10_percent)};
    {count(popularity.without_click)} items have none."""
    points = folded("The curve's numbers", html.records(popularity.curve))
    return section("Popularity", paragraph(text), beside(chart), points)


def _side_features(found: Inspection) -> str:
    if not found.levels:
        return ""
    charts, tables = [], []
    for side in found.levels:
        axes = empty_axes()
        columns = lines(ValueFacts)
        for name, split in found.splits.items():
            columns[f"{name}: rows"] = lambda v, name=name: count(v.splits[name].rows)
            if split.label_mean is not None:
                columns[f"{name}: label mean"] = lambda v, name=name: decimal(v.splits[name].label_mean)
                means = [v.splits[name].label_mean for v in side.values]
                axes.plot(range(len(means)), means, "o-", color=colour(name), markersize=3, label=name)
                axes.axhline(split.label_mean, color=colour(name), linestyle=":", linewidth=1)
        tick_names(axes, [str(v.value) for v in side.values], every=len(side.values) // 12 + 1)
        title = f"Label mean by {short(side.feature)}"
        charts.append(picture(axes, title=title, xlabel="value", ylabel="label mean"))
        left = side.distinct - len(side.values)
        title = side.feature + (f": the most frequent values, {count(left)} more are left out" if left else "")
        tables.append(folded(title, html.records(side.values, columns=columns)))
    return section("Side features against the label", beside(*charts), *tables)


def _aucs(found: Inspection) -> str:
    features, splits = found.label_auc, list(found.label_auc[0].splits)
    axes = empty_axes(1.0 + 0.24 * len(features))
    for name, shift in zip(splits, shifts(len(splits), 0.2), strict=True):
        places = [row + shift for row in range(len(features))]
        axes.plot([f.splits[name].auc for f in features], places, "o", c=colour(name), ms=4, label=name)
    axes.axvline(0.5, color="0.5", linewidth=1)
    rows_of(axes, [f.feature for f in features], "AUC of single features")
    chart = picture(axes, xlabel="AUC")
    areas = {name: lambda f, name=name: decimal(f.splits[name].auc) for name in splits}
    sizes = ", ".join(f"{count(n)} rows of {name}" for name, n in found.sample.rows.items())
    patterns = {name: f"remainder by {n}" if n else "parts of the file" for name, n in features[-1].every.items()}
    orders = ", ".join(f"{pattern} in {name}" for name, pattern in patterns.items())
    text = f"""Each value of a feature (numbers in up to 32 quantile bins) stands for its smoothed label mean: within
    train cross-fitted over two random halves, in valid and test as train has it. Below 0.5 within train, labels are
    balanced within each value, such as a positive and a negative for each click of a user. All rows are counted;
    cosines and the next section are of a random sample: {sizes}. The order of the rows is cross-fitted in each
    split, and its strongest pattern is shown ({orders})."""
    table = html.records(features, columns=lines(LabelAuc) | areas)
    return section("What a single feature says about the label", paragraph(text), beside(chart, table))


def _drift(found: Inspection) -> str:
    text = """A gradient-boosted classifier learns to tell the rows of a split from those of train; AUC 0.5 means that
    it cannot. It sees the features above but for ids and row order; a user's rows are in one fold of three."""
    charts, tables = [], []
    for name, drift in found.drift.items():
        axes, features = empty_axes(1.2 + 0.24 * min(len(drift.features), _DRIFT_BARS)), drift.features[:_DRIFT_BARS]
        axes.barh(range(len(features)), [f.drop or 0 for f in features], color=colour(name))
        rows_of(axes, [f.feature for f in features], f"What tells {name} from train")
        axes.grid(False, axis="y")
        charts.append(picture(axes, xlabel="AUC lost without the feature"))
        means = {f"mean in {split}": lambda f, split=split: decimal(f.means[split]) for split in ("train", name)}
        title = f"{name} against train: AUC {decimal(drift.auc)}"
        tables.append(html.records(drift.features, title, lines(DriftFeature) | means))
    return section("Drift between splits", paragraph(text), beside(*charts), *tables)


def _repeats(found: Inspection) -> str:
    of_label = {f"of label {i}": lambda own, i=i: percent(own.share_of_label and own.share_of_label[i]) for i in (0, 1)}
    own = html.compared(found.target_in_history, lines(OwnHistory) | of_label, "The target stands in its own history")
    repeats = found.repeats
    where = {"rows of": lambda r: f"{r.split}, in {r.of}" if r.of else r.split}
    equal = html.records([*repeats.within, *repeats.across], "Equal rows", where | lines(Repeated))
    text = f"Rows are equal if {', '.join(repeats.by[:-1])} and {repeats.by[-1]} are."
    return section("Rows that repeat, contradict, or hold their answer", own, equal, paragraph(text))


def _vectors(found: Inspection) -> str:
    charts, zero = [], []
    for v in found.embeddings:
        if v.norm:
            axes = empty_axes()
            axes.stairs(v.norm.histogram.items, v.norm.histogram.edges, fill=True, color="C0")
            charts.append(picture(axes, title=f"Norms of {short(v.feature)}", xlabel="norm", ylabel="items"))
        if v.zero:
            items = ", ".join(map(str, v.zero_items))
            zero.append(paragraph(f"Items with a zero vector in {v.feature}, the first: {items}."))
    return section("Vectors", beside(*charts), html.records(found.embeddings), *zero) if found.embeddings else ""


def _ids(found: Inspection) -> str:
    charts, lists = [], []
    for t in found.tags:
        if len(t.per_item) > 2:
            axes = empty_axes()
            axes.bar(range(len(t.per_item)), t.per_item, color="C0")
            tick_names(axes, bins.names(bins.doubling(2 ** (len(t.per_item) - 2))))
            charts.append(picture(axes, title=f"{short(t.feature)}: ids per item", xlabel="ids", ylabel="items"))
        lists.append(folded(f"{t.feature}: most used", html.records(t.most_used)))
    return section("Tags and categories", beside(*charts), html.records(found.tags), *lists) if found.tags else ""
