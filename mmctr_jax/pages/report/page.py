"""The report: what runs achieved, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context

from mmctr_jax.console import clock, log, show
from mmctr_jax.errors import InputError
from mmctr_jax.files import expanded, writing
from mmctr_jax.formats import count, decimal, lines
from mmctr_jax.pages import html
from mmctr_jax.pages.figures import STYLE, colour, dashes, empty_axes, picture, shifts, tick_names
from mmctr_jax.pages.html import beside, paragraph, section
from mmctr_jax.pages.intervals import Compared, count_draws
from mmctr_jax.pages.output import check_writable, write_files
from mmctr_jax.pages.report.numbers import Calibrated, Group, Report, SliceMetrics, SplitMetrics, estimate, measure
from mmctr_jax.pages.report.runs import Run, read_runs
from mmctr_jax.pages.report.slices import Slicing

_TITLE = "Report: "
_ADVICE = "name another file with --out"
_FILES = ("train", "valid", "test", "test_labels", "item_info")
_BARS = 40  # of a histogram of scores
_TICKS = 8  # learning rates, at most


def report(directories: str | Path | Sequence[str | Path], out: str | Path) -> Report:
    """Writes the page on these runs to `out`, and returns its numbers.

    Raises: InputError where a run or `out` cannot be used; nothing is written then.
    """
    if isinstance(directories, str | Path):
        directories = [directories]
    out = expanded(out)
    _check_output(out)
    found = measure(read_runs([expanded(directory) for directory in directories]))
    write_files(out.parent, _ADVICE, {out.name: render(found)})
    for note in found.notes:
        log.warning(f"Note: {note}")
    log.info(f"The page is {out}.")
    return found


def _check_output(out: Path) -> None:
    if out.suffix != ".html":
        raise InputError(f"Output {out} must end in .html; {_ADVICE}.")
    if not out.parent.is_dir():
        raise InputError(f"Folder {out.parent} for the output does not exist; make it first.")
    check_writable(out.parent, _ADVICE, named=out)
    with writing(out, _ADVICE):
        if out.exists() and f"<title>{_TITLE}".encode() not in out.read_bytes()[:2000]:
            raise InputError(f"Output {out} is there, and no report; {_ADVICE}.")


@rc_context(STYLE)
def render(found: Report) -> str:
    """The whole page. Nothing is computed here."""
    parts = [html.notes(found.notes)] if found.notes else []
    parts += [_runs(found.runs), _curves(found.runs), _metrics(found.splits)]
    for split, groups in found.splits.items():
        parts += [_scores(split, groups, several=len(found.runs) > 1), _slices(split, groups)]
    return html.page(_TITLE + ", ".join(run.name for run in found.runs), *parts)


def _runs(runs: list[Run]) -> str:
    files = [name for name in _FILES if any(getattr(run.config.data, name) for run in runs)]
    facts = {
        "state": lambda run: run.state,
        "model": lambda run: run.config.model.name,
        "parameters": lambda run: count(run.summary and run.summary.parameters),
        "item features": lambda run: ", ".join(f.describe() for f in run.config.features.item_features) or "–",
        "side features": lambda run: ", ".join(side.name for side in run.config.features.side) or "–",
        "items": lambda run: count(run.config.features.num_items - 1),
        "users in train": lambda run: count(run.users),
        **{name: lambda run, name=name: _file(run, name) for name in files},
        "steps": lambda run: count(run.steps),
        "epochs": lambda run: decimal(run.epochs, 2),
        "validation AUC at the best step": lambda run: (
            f"{show(run.best['auc'])} at step {count(run.best['step'])}" if run.best else "–"
        ),
        "scored with": lambda run: "–" if run.step is None else f"step {count(run.step)}",
        "time at work": lambda run: clock(run.summary.seconds) if run.summary else "–",
        "samples a second": lambda run: decimal(run.last.get("samples_per_second"), 0),
        "devices": _devices,
        "precision": lambda run: run.config.train.precision,
        "seed": lambda run: str(run.config.train.seed),
        "git revision": lambda run: run.metadata.get("git") or "–",
        "Python": lambda run: run.metadata.get("python") or "–",
        "packages": lambda run: ", ".join(map(" ".join, (run.metadata.get("versions") or {}).items())) or "–",
    }
    table = html.compared({run.name: run for run in runs}, facts, breaks=True)
    configs = [html.folded(f"config.yaml of {run.name}", html.preformatted(run.text)) for run in runs]
    return section("What was trained on what", table, *configs)


def _file(run: Run, name: str) -> str:
    """Its last two names, for the room; the config has the path."""
    path = getattr(run.config.data, name)
    rows = f" ({count(run.file_rows[name])} rows)" if name in run.file_rows else ""
    return "/".join(Path(path).parts[-2:]) + rows if path else "–"


def _devices(run: Run) -> str:
    devices = run.metadata.get("devices")
    if not devices:
        return "–"
    hosts = f" on {devices['processes']} hosts" if devices["processes"] > 1 else ""
    return f"{devices['count']} × {devices['kind']}{hosts}"


def _curves(runs: list[Run]) -> str:
    if not any(any(run.curves.values()) for run in runs):
        return section("Curves", paragraph("Nothing is recorded yet."))
    return section("Curves", beside(*(_curve(title, runs) for title in runs[0].curves)))


def _curve(title: str, runs: list[Run]) -> str:
    """One quantity over the steps, a line per run."""
    axes, rate = empty_axes(), title == "learning rate"
    look = {"marker": "o", "markersize": 3} if title.startswith("validation") else {}
    look |= {"drawstyle": "steps-post"} if rate else {}
    for run in (run for run in runs if run.curves[title]):
        steps, values = zip(*run.curves[title], strict=True)
        axes.plot(steps, values, dashes(run.number), c=colour(run.number), label=run.label, **look)
    axes.locator_params(axis="x", nbins=6, integer=True)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    if rate:
        axes.set_yscale("log")
        rates = sorted({rate for run in runs for _, rate in run.curves[title]})
        ticks = rates[:: -(-len(rates) // _TICKS) or 1]
        axes.set_yticks(ticks, [f"{rate:.3g}" for rate in ticks])
        axes.set_yticks([], minor=True)
    return picture(axes, title=title[0].upper() + title[1:], xlabel="step")


def _metrics(splits: dict[str, list[Group]]) -> str:
    if not splits:
        return section("Metrics", paragraph("Nothing is scored; the notes above say why."))
    draws = sorted({count_draws(group.runs[0].rows) for groups in splits.values() for group in groups})
    text = f"""In brackets: the 95 % interval, by bootstrap: rows are drawn again with replacement,
    {" or ".join(map(count, draws))} times. The calibration error is the mean distance between mean score and
    label mean over 15 bins of equal count; even true probabilities have some, by chance."""
    parts = [paragraph(text)]
    for split, groups in splits.items():
        runs = sorted((one for group in groups for one in group.runs), key=lambda one: one.run.number)
        rows = lines(SplitMetrics)
        if any(one.calibrated for one in runs):
            for header, cell in lines(Calibrated).items():
                rows[header] = lambda one, cell=cell: cell(one.calibrated) if one.calibrated else "–"
        parts.append(html.compared({one.run.label: one for one in runs}, rows, corner=split))
        more = {split: lambda one: one.run.label, "AUC": lambda one: _more(one.auc)}
        more["logloss"] = lambda one: _more(one.logloss)
        for first, *others in (group.runs for group in groups if len(group.runs) > 1):
            parts.append(html.records(others, f"More than {first.run.label}, by the same draws for both", more))
    return section("Metrics", *parts)


def _more(found: Compared | None) -> str:
    """+0.0011 [-0.0002, +0.0024]"""
    return estimate(found and found.more, "+z.4f")


def _scores(split: str, groups: list[Group], several: bool) -> str:
    parts = []
    for runs in (group.runs for group in groups):
        roc = [(one.run, *one.roc, dashes(one.run.number), "") for one in runs if one.roc]
        parts += [_square(f"ROC, {split}", "false positive rate", "true positive rate", roc)] if roc else []
        curves = [(one.run, one.curve, "o-", "") for one in runs]
        curves += [(one.run, one.calibrated.curve, "s--", ", calibrated") for one in runs if one.calibrated]
        points = [(run, curve.score, curve.label, style, suffix) for run, curve, style, suffix in curves]
        parts.append(_square(f"Calibration, {split}", "mean score", "label mean", points))
        parts += [_histogram(split, one, several) for one in runs]
    return section(f"ROC, calibration and scores: {split}", beside(*parts))


def _square(title: str, xlabel: str, ylabel: str, curves: list[tuple[Run, np.ndarray, np.ndarray, str, str]]) -> str:
    """Curves beside the diagonal: run, x, y, style, and what to say of it after the run's label."""
    axes = empty_axes(3.4)
    for run, x, y, style, suffix in curves:
        axes.plot(x, y, style, c=colour(run.number), markersize=3, label=run.label + suffix)
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
    return picture(axes, title=title, xlabel=xlabel, ylabel=ylabel, aspect="equal")


def _histogram(split: str, one: SplitMetrics, several: bool) -> str:
    axes, edges = empty_axes(), np.histogram_bin_edges(np.concatenate(one.scores), _BARS)
    for label, scores in enumerate(one.scores):
        if len(scores):
            look = {"color": f"C{label}", "label": f"label {label}", "alpha": 0.45, "histtype": "stepfilled"}
            axes.hist(scores, edges, weights=np.full(len(scores), 100 / len(scores)), **look)
    title = f"Scores, {split}" + (f": {one.run.label}" if several else "")
    return picture(axes, title=title, xlabel="score", ylabel="% of the label's rows")


def _slices(split: str, groups: list[Group]) -> str:
    text = """The length of a history is that of all clicks in the row, however many of them the model sees. An item is
    known if it is a target in train or stands in a history there. A dash: all labels are the same. No interval,
    and a hollow dot in the picture: too few rows of one label. Where the AUC is 1, its interval says little:
    rows that are drawn again make no mistakes that were not there."""
    parts = [paragraph(text)]
    for group in groups:
        charts, tables, labels = [], [], [one.run.label for one in group.runs]
        for cut, slices in group.sliced:
            charts.append(_slice_chart(split, group.runs, cut, slices))
            rows = [[s.name, count(s.rows), *map(estimate, s.aucs), *map(_more, s.aucs[1:])] for s in slices]
            left = f" ({count(cut.left_out)} rarer values are left out)" if cut.left_out else ""
            headers = [cut.unit, "rows", *labels, *(f"{label}, more than {labels[0]}" for label in labels[1:])]
            tables.append(html.table(headers, rows, f"AUC by {cut.by}{left}"))
        if len(group.runs) > 1:  # tables too wide for half the page
            parts += [beside(*charts), *tables]
        else:
            parts += [beside(*both) for both in zip(charts, tables, strict=True)]
    return section(f"AUC by slices: {split}", *parts)


def _slice_chart(split: str, runs: list[SplitMetrics], cut: Slicing, slices: list[SliceMetrics]) -> str:
    """AUC by slice: hollow where there is no interval. The dotted lines are the AUC of all rows."""
    axes = empty_axes()
    for i, (one, shift) in enumerate(zip(runs, shifts(len(runs), 0.16 * min(1, 5 / len(runs))), strict=True)):
        look = {"c": colour(one.run.number)}
        for x, auc in ((x + shift, s.aucs[i]) for x, s in enumerate(slices) if s.aucs[i]):
            axes.plot([x, x], auc.interval or (auc.value, auc.value), linewidth=1, **look)
            hollow = {} if auc.interval else {"markerfacecolor": "w", "zorder": 3}
            axes.plot(x, auc.value, "o", markersize=4, **hollow, **look)
        axes.plot([], [], "o", markersize=4, label=one.run.label, **look)  # for the legend
        if one.auc:
            axes.axhline(one.auc.value, linestyle=":", linewidth=1, **look)
    tick_names(axes, [s.name for s in slices])
    axes.set_xlim(-0.6, len(slices) - 0.4)
    return picture(axes, title=f"AUC, {split}", xlabel=cut.by[:40], ylabel="AUC")
