"""Which settings matter (the paper's Figure 2): each field is varied around the base, over several seeds.

The runs are laid out as `variants` says: OUT/FIELD=VALUE/seedN, those of the base in OUT/base.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmctr_jax.config import Config
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.space import Range, Space, label
from mmctr_jax.experiments.tables import csv_table, markdown_table, mean_and_deviation, mean_text
from mmctr_jax.experiments.variants import Variant, train_variants, value_of
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.recorder import save_figure

COLLAPSED = 0.52  # a validation AUC below this is no better than chance
_BASE = "base"
_LONGEST_LABEL = 14  # characters below a panel


@dataclass
class FieldValue:
    """One value of one field, and the variant that has it: the base, where it is the base's value."""

    value: Any
    variant: Variant

    @property
    def aucs(self) -> list[float]:
        """Validation AUCs of the runs that learned something."""
        return [auc for auc in self.variant.values("validation.auc") if auc >= COLLAPSED]

    @property
    def collapsed(self) -> int:
        """How many runs ended with a validation AUC below `COLLAPSED`."""
        return sum(auc < COLLAPSED for auc in self.variant.values("validation.auc"))

    @property
    def is_base(self) -> bool:
        """Whether this is the base's own value."""
        return self.variant.name == _BASE


ValuesByField = dict[str, list[FieldValue]]  # in the space's order


def one_at_a_time(space: Space, seeds: list[int], out: Path) -> bool:
    """Trains the base with each value of each field; writes sensitivity.md, .csv and .png, and a FIELD.png for each.

    Only validation AUCs count: the test file is not read.

    Returns: whether all is done (False: interrupted, having saved).
    Raises: InputError, before any training, where the config refuses a value or the data are wrong.
    """
    ranges = [name for name, field in space.fields.items() if isinstance(field, Range)]
    if ranges:
        raise InputError(f"{space.where}: {ranges[0]} is a range; list the values to try.")
    if "train.seed" in space.fields:
        raise InputError(f"{space.where}: train.seed cannot be varied here, where every value has seeds 1 … N.")
    space.check_each_value()
    base = Variant(_BASE, _by_seed(space, {}, seeds))
    variants = [base]
    by_field: ValuesByField = {}
    for name, field in space.fields.items():
        by_field[name] = []
        for value in field.values:
            variant = Variant(_variant_name(name, value), _by_seed(space, {name: value}, seeds))
            if variant.configs == base.configs:
                variant = base
            else:
                variants.append(variant)
            by_field[name].append(FieldValue(value, variant))
    return train_variants(variants, seeds, out, lambda: write_sensitivity(by_field, base, out), score_test=False)


def _by_seed(space: Space, values: dict[str, Any], seeds: list[int]) -> dict[int, Config]:
    return {seed: space.config(values | {"train.seed": seed}) for seed in seeds}


def _variant_name(name: str, value: Any) -> str:
    """FIELD=VALUE where every file system takes that as the name of a folder, else a hash in the value's place."""
    text = f"{name}={label(value)}"
    plain = re.fullmatch(r"[\w.=,+-]{1,100}", text)
    return text if plain else f"{name}={hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_sensitivity(by_field: ValuesByField, base: Variant, out: Path) -> None:
    """Writes the tables and pictures of the runs that are done."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "sensitivity.md", _markdown(by_field))
    write_atomically(out / "sensitivity.csv", _csv(by_field))
    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a value is a $
        for name, values in by_field.items():
            _draw({name: values}, base, out / f"{name}.png")
        _draw(by_field, base, out / "sensitivity.png")


def _markdown(by_field: ValuesByField) -> str:
    rows = []
    for name, values in by_field.items():
        for each in values:
            remarks = [f"{each.collapsed} collapsed (AUC below {COLLAPSED})"] if each.collapsed else []
            remarks += [f"{each.variant.failed} failed"] if each.variant.failed else []
            remarks += ["base"] if each.is_base else []
            runs = str(len(each.variant.results))
            rows.append([name, label(each.value), mean_text(each.aucs), runs, ", ".join(remarks)])
    note = "Mean ± standard deviation over the seeds, of the runs that neither collapsed nor failed."
    return f"{markdown_table(['field', 'value', 'validation AUC', 'runs', ''], rows)}\n{note}\n"


def _csv(by_field: ValuesByField) -> str:
    header = ["field", "value", "runs_in", "seed", "validation_auc", "validation_logloss", "collapsed", "seconds"]
    rows = []
    for name, values in by_field.items():
        for each in values:
            for seed, result in sorted(each.variant.results.items()):
                auc, logloss = value_of(result, "validation.auc"), value_of(result, "validation.logloss")
                collapsed = int(auc is not None and auc < COLLAPSED)
                row = [name, label(each.value), each.variant.name, seed, auc, logloss, collapsed]
                rows.append([*row, result.get("seconds"), result.get("failed")])
    return csv_table([*header, "failed"], rows)


def _draw(by_field: ValuesByField, base: Variant, path: Path) -> None:
    """A panel per field, all with the same AUC axis; dashed: the base's mean."""
    columns = min(len(by_field), 3)
    rows = math.ceil(len(by_field) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    mean, _ = mean_and_deviation(FieldValue(None, base).aucs)
    for axes, (name, values) in zip(panels.flat, by_field.items(), strict=False):
        _draw_panel(axes, name, values)
        if mean is not None:
            axes.axhline(mean, color="0.6", linestyle="--", linewidth=1, zorder=0)
    for row in panels:
        row[0].set_ylabel("validation AUC")
    for axes in panels.flat[len(by_field) :]:
        axes.set_visible(False)
    save_figure(figure, path)


def _draw_panel(axes: Axes, name: str, values: list[FieldValue]) -> None:
    """Mean ± standard deviation, single seeds beside it; in red, how many collapsed or failed.

    The AUCs of collapsed runs are not drawn: they would leave no room for the others.
    """
    summary = [mean_and_deviation(each.aucs) for each in values]
    places = [place for place, (mean, _) in enumerate(summary) if mean is not None]
    means, deviations = [summary[place][0] for place in places], [summary[place][1] or 0 for place in places]
    if places:
        axes.errorbar(places, means, yerr=deviations, fmt="o-", color="C0", capsize=3)
    for place, each in enumerate(values):
        axes.plot([place + 0.12] * len(each.aucs), each.aucs, ".", color="C1", markersize=4)
        lost = [f"{each.collapsed} collapsed"] if each.collapsed else []
        lost += [f"{each.variant.failed} failed"] if each.variant.failed else []
        style = {"ha": "center", "va": "bottom", "color": "C3", "fontsize": 8}
        axes.annotate("\n".join(lost), (place, 0.03), xycoords=("data", "axes fraction"), **style)
    labels = [_shortened(label(each.value)) + ("\n(base)" if each.is_base else "") for each in values]
    axes.set_xticks(range(len(values)), labels)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_title(name, fontsize=10)
    axes.grid(alpha=0.3)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
