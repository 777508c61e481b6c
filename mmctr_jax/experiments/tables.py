"""The tables of a comparison: table.md, table.csv and table.png, a row per config; runs.csv, a row per run."""

from __future__ import annotations

import csv
import io
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from mmctr_jax.files import write_atomically
from mmctr_jax.runs.recorder import save_figure


@dataclass
class System:
    """A row of the table: one config and its results, by seed."""

    name: str
    results: dict[int, dict[str, Any]] = field(default_factory=dict)

    def values(self, key: str) -> list[float]:
        """One value per run that has it: of the result's `test` or `validation` metrics, or of the result itself."""
        part, _, name = key.rpartition(".")
        found = [(r.get(part) or {} if part else r).get(name) for r in self.results.values()]
        return [value for value in found if value is not None]

    @property
    def failed(self) -> int:
        return sum("failed" in result for result in self.results.values())


COLUMNS = ("test.auc", "test.logloss", "validation.auc", "seconds")
RUN_COLUMNS = (*COLUMNS, "test.gauc", "validation.logloss", "parameters", "epochs", "best_step", "samples_per_second")


def mean_and_deviation(values: list[float]) -> tuple[float | None, float | None]:
    """The mean, and the sample's standard deviation where there are two values or more."""
    return (
        statistics.mean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def write_tables(systems: list[System], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "table.md", markdown(systems))
    write_atomically(out / "table.csv", as_csv(*summary_rows(systems)))
    write_atomically(out / "runs.csv", as_csv(*run_rows(systems)))
    draw(systems, out / "table.png")


def markdown(systems: list[System]) -> str:
    """Table 2's columns: mean ± standard deviation over the seeds."""
    lines = [
        "| system | test AUC | test logloss | validation AUC | minutes a run | parameters | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for system in systems:
        cells = [cell(system.values(key)) for key in COLUMNS[:3]]
        seconds, _ = mean_and_deviation(system.values("seconds"))
        parameters = system.values("parameters")
        cells.append("–" if seconds is None else f"{seconds / 60:.1f}")
        cells.append(f"{parameters[0]:,}" if parameters else "–")
        cells.append(f"{len(system.results)}" + (f", {system.failed} failed" if system.failed else ""))
        lines.append(f"| {system.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(values: list[float]) -> str:
    """Mean ± standard deviation."""
    mean, deviation = mean_and_deviation(values)
    if mean is None:
        return "–"
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def summary_rows(systems: list[System]) -> tuple[list[str], list[list[Any]]]:
    header = ["system", "seeds", "failed", "parameters"]
    header += [f"{key.replace('.', '_')}_{what}" for key in COLUMNS for what in ("mean", "deviation")]
    rows = []
    for system in systems:
        parameters = system.values("parameters")
        row = [system.name, len(system.results), system.failed, parameters[0] if parameters else None]
        rows.append(row + [value for key in COLUMNS for value in mean_and_deviation(system.values(key))])
    return header, rows


def run_rows(systems: list[System]) -> tuple[list[str], list[list[Any]]]:
    header = ["system", "seed", *(key.replace(".", "_") for key in RUN_COLUMNS), "failed"]
    rows = []
    for system in systems:
        for seed, result in sorted(system.results.items()):
            one = System(system.name, {seed: result})
            values = [next(iter(one.values(key)), None) for key in RUN_COLUMNS]
            rows.append([system.name, seed, *values, result.get("failed")])
    return header, rows


def as_csv(header: list[str], rows: list[list[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # None is an empty field
    return buffer.getvalue()


def draw(systems: list[System], path: Path) -> None:
    """Test AUC (validation AUC where no test labels are known): a dot per run, a bar for mean ± deviation."""
    key = "test.auc" if any(system.values("test.auc") for system in systems) else "validation.auc"
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.32 * len(systems)), layout="constrained")
    for row, system in enumerate(systems):
        values = system.values(key)
        mean, deviation = mean_and_deviation(values)
        if mean is None:
            axes.annotate(
                "failed" if system.failed else "not run",
                (0.01, row),
                va="center",
                color="0.5",
                xycoords=("axes fraction", "data"),
            )
            continue
        axes.errorbar(mean, row, xerr=deviation or 0, fmt="o", color="C0", capsize=3)
        axes.plot(values, [row + 0.22] * len(values), ".", color="C1", markersize=5)
    axes.set_yticks(range(len(systems)), [system.name for system in systems])
    axes.set_ylim(len(systems) - 0.5, -0.5)
    axes.set(xlabel=f"{key.replace('.auc', ' AUC')}: mean ± standard deviation (blue), single seeds (orange)")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
