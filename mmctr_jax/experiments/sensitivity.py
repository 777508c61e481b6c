"""Which settings matter (the paper's Figure 2): each field varied around the base, over several seeds.

Runs are those of a comparison: OUT/FIELD=VALUE/seedN, the base's in OUT/base; finished ones are reused.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from mmctr_jax.config import Config
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.comparison import run_all
from mmctr_jax.experiments.space import Range, Space, in_table, label
from mmctr_jax.experiments.tables import System, as_csv, cell, mean_and_deviation
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.recorder import save_figure

COLLAPSED = 0.52  # a validation AUC below this has learned nothing worth the name


@dataclass
class Point:
    """One value of one field: its runs."""

    value: Any
    system: System

    @property
    def aucs(self) -> list[float]:
        """Validation AUCs of the runs that learned something."""
        return [auc for auc in self.system.values("validation.auc") if auc >= COLLAPSED]

    @property
    def collapsed(self) -> list[float]:
        return [auc for auc in self.system.values("validation.auc") if auc < COLLAPSED]


Points = dict[str, list[Point]]  # by field, in the space's order
_BASE = "base"


def one_at_a_time(space: Space, seeds: list[int], out: Path) -> bool:
    """Runs each value of each field with the base's others and writes sensitivity.md, .csv, .png and a FIELD.png each.

    Validation AUC alone: the test file is not touched. Returns whether all is done (False: interrupted, having saved).
    Raises: InputError, before any training where the config refuses a value or the data are wrong.
    """
    ranges = [name for name, field in space.fields.items() if isinstance(field, Range)]
    if ranges:
        raise InputError(f"{space.where}: {ranges[0]} is a range; list the values to try.")
    if "train.seed" in space.fields:
        raise InputError(f"{space.where}: train.seed cannot be varied here, where every value has seeds 1 … N.")
    space.check_each_value()
    configs: dict[str, dict[int, Config]] = {_BASE: _by_seed(space, {}, seeds)}
    systems = {_BASE: System(_BASE)}
    points: Points = {}
    for name, field in space.fields.items():
        points[name] = []
        for value in field.values:
            by_seed = _by_seed(space, {name: value}, seeds)
            system_name = _BASE if by_seed == configs[_BASE] else _folder(name, value)
            configs[system_name] = by_seed
            system = systems.setdefault(system_name, System(system_name))
            points[name].append(Point(value, system))
    plan = [(system, configs[name]) for name, system in systems.items()]
    return run_all(plan, seeds, out, lambda: write_sensitivity(points, systems[_BASE], out), score_test=False)


def _by_seed(space: Space, values: dict[str, Any], seeds: list[int]) -> dict[int, Config]:
    return {seed: space.config(values | {"train.seed": seed}) for seed in seeds}


def _folder(name: str, value: Any) -> str:
    """A folder's name for a field's value: the two themselves, where no system minds."""
    text = f"{name}={label(value)}"
    plain = re.fullmatch(r"[\w.=,+-]{1,100}", text)
    return text if plain else f"{name}={hashlib.sha256(text.encode()).hexdigest()[:8]}"


def write_sensitivity(points: Points, base: System, out: Path) -> None:
    """Tables and pictures of the runs that there are."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "sensitivity.md", _markdown(points))
    write_atomically(out / "sensitivity.csv", _csv(points))
    for name in points:
        _draw({name: points[name]}, base, out / f"{name}.png")
    _draw(points, base, out / "sensitivity.png")


def _markdown(points: Points) -> str:
    lines = ["| field | value | validation AUC | runs | |", "|---|---|---|---|---|"]
    for name, of_field in points.items():
        for point in of_field:
            remarks = [f"{len(point.collapsed)} collapsed (AUC below {COLLAPSED})"] if point.collapsed else []
            remarks += [f"{point.system.failed} failed"] if point.system.failed else []
            remarks += ["base"] if point.system.name == _BASE else []
            texts = (
                name,
                in_table(label(point.value)),
                cell(point.aucs),
                str(len(point.system.results)),
                ", ".join(remarks),
            )
            lines.append(f"| {' | '.join(texts)} |")
    lines += ["", "Mean ± standard deviation over the seeds, of the runs that neither collapsed nor failed."]
    return "\n".join(lines) + "\n"


def _csv(points: Points) -> str:
    rows = []
    for name, of_field in points.items():
        for point in of_field:
            for seed, result in sorted(point.system.results.items()):
                auc = result.get("validation", {}).get("auc")
                collapsed = auc is not None and auc < COLLAPSED
                logloss = result.get("validation", {}).get("logloss")
                row = [name, label(point.value), point.system.name, seed, auc, logloss, int(collapsed)]
                rows.append([*row, result.get("seconds"), result.get("failed")])
    header = ["field", "value", "runs_in", "seed", "validation_auc", "validation_logloss", "collapsed", "seconds"]
    return as_csv([*header, "failed"], rows)


def _draw(points: Points, base: System, path: Path) -> None:
    """A panel per field, AUC axes alike: mean ± standard deviation, single seeds beside it; dashed: the base's mean;
    red: how many collapsed or failed, whose AUC would leave no room for the others."""
    with matplotlib.rc_context({"text.parse_math": False}):  # a $ in a value is a $
        _draw_panels(points, base, path)


def _draw_panels(points: Points, base: System, path: Path) -> None:
    columns = min(len(points), 3)
    rows = math.ceil(len(points) / columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(4.2 * columns, 3.2 * rows), layout="constrained", squeeze=False, sharey=True
    )
    for axes, (name, of_field) in zip(panels.flat, points.items(), strict=False):
        _panel(axes, name, of_field)
        mean, _ = mean_and_deviation(Point(None, base).aucs)
        if mean is not None:
            axes.axhline(mean, color="0.6", linestyle="--", linewidth=1, zorder=0)
    for row in panels:
        row[0].set_ylabel("validation AUC")
    for axes in panels.flat[len(points) :]:
        axes.set_visible(False)
    save_figure(figure, path)


def _panel(axes: Axes, name: str, of_field: list[Point]) -> None:
    summary = [mean_and_deviation(point.aucs) for point in of_field]
    places = [i for i, (mean, _) in enumerate(summary) if mean is not None]
    means, deviations = [summary[i][0] for i in places], [summary[i][1] or 0 for i in places]
    if places:
        axes.errorbar(places, means, yerr=deviations, fmt="o-", color="C0", capsize=3)
    for i, point in enumerate(of_field):
        axes.plot([i + 0.12] * len(point.aucs), point.aucs, ".", color="C1", markersize=4)
        lost = [f"{len(point.collapsed)} collapsed"] if point.collapsed else []
        lost += [f"{point.system.failed} failed"] if point.system.failed else []
        if lost:
            place = ("data", "axes fraction")
            axes.annotate("\n".join(lost), (i, 0.03), xycoords=place, ha="center", va="bottom", color="C3", fontsize=8)
    labels = [_short(label(p.value)) + ("\n(base)" if p.system.name == _BASE else "") for p in of_field]
    axes.set_xticks(range(len(of_field)), labels)
    axes.set_xlim(-0.5, len(of_field) - 0.5)
    axes.set_title(name, fontsize=10)
    axes.grid(alpha=0.3)


def _short(text: str) -> str:
    return text if len(text) <= 14 else f"{text[:13]}…"
