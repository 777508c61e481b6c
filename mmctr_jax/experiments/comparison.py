"""Compares configs over several seeds: table.md, table.csv and table.png, a row per config; runs.csv, a row per run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmctr_jax.config import load_config
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.tables import csv_table, markdown_table, mean_and_deviation, mean_text
from mmctr_jax.experiments.variants import Variant, train_variants, value_of
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.recorder import save_figure

_SUMMARISED = ("test.auc", "test.logloss", "validation.auc", "seconds")  # the columns of table.csv
_PER_RUN = (*_SUMMARISED, "test.gauc", "validation.logloss", "parameters", "epochs", "best_step", "samples_per_second")


def compare(paths: list[Path], overrides: list[str], seeds: list[int], out: Path) -> bool:
    """Trains and scores each config with each seed, unless that is done already, and writes the tables.

    Args:
      paths: config files; their names without the suffix are the rows of the table.
      overrides: `section.key=value` settings for all of them.
      out: folder of the runs and tables, see `variants`.
    Returns: whether all is done (False: interrupted, having saved).
    Raises: InputError, before any training, where a config or the data are wrong.
    """
    names = [path.stem for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"Two configs are named {twice}; the name is the row of the table, so rename one file.")
    if any(text.partition("=")[0] == "train.seed" for text in overrides):
        raise InputError("train.seed cannot be set for a comparison, which trains with seeds 1 … N of --seeds.")
    variants = [
        Variant(path.stem, {seed: load_config(path, [*overrides, f"train.seed={seed}"]) for seed in seeds})
        for path in paths
    ]
    return train_variants(variants, seeds, out, lambda: write_tables(variants, out))


def write_tables(variants: list[Variant], out: Path) -> None:
    """Writes table.md, table.csv, table.png and runs.csv of the runs that are done."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "table.md", _markdown(variants))
    write_atomically(out / "table.csv", _summary_csv(variants))
    write_atomically(out / "runs.csv", _runs_csv(variants))
    _draw(variants, out / "table.png")


def _markdown(variants: list[Variant]) -> str:
    """The columns of the paper's Table 2: mean ± standard deviation over the seeds."""
    header = ["system", "test AUC", "test logloss", "validation AUC", "minutes a run", "parameters", "seeds"]
    rows = []
    for variant in variants:
        seconds, _ = mean_and_deviation(variant.values("seconds"))
        parameters = variant.values("parameters")
        rows.append(
            [
                variant.name,
                *(mean_text(variant.values(key)) for key in _SUMMARISED[:3]),
                "–" if seconds is None else f"{seconds / 60:.1f}",
                f"{parameters[0]:,}" if parameters else "–",
                f"{len(variant.results)}" + (f", {variant.failed} failed" if variant.failed else ""),
            ]
        )
    return markdown_table(header, rows)


def _summary_csv(variants: list[Variant]) -> str:
    header = ["system", "seeds", "failed", "parameters"]
    header += [f"{_column(key)}_{what}" for key in _SUMMARISED for what in ("mean", "deviation")]
    rows = []
    for variant in variants:
        row: list[Any] = [variant.name, len(variant.results), variant.failed]
        row.append(next(iter(variant.values("parameters")), None))
        rows.append(row + [value for key in _SUMMARISED for value in mean_and_deviation(variant.values(key))])
    return csv_table(header, rows)


def _runs_csv(variants: list[Variant]) -> str:
    rows = [
        [variant.name, seed, *(value_of(result, key) for key in _PER_RUN), result.get("failed")]
        for variant in variants
        for seed, result in sorted(variant.results.items())
    ]
    return csv_table(["system", "seed", *map(_column, _PER_RUN), "failed"], rows)


def _column(key: str) -> str:
    return key.replace(".", "_")


def _draw(variants: list[Variant], path: Path) -> None:
    """Test AUC (validation AUC where no test labels are known): a dot per run, a bar for mean ± deviation."""
    key = "test.auc" if any(variant.values("test.auc") for variant in variants) else "validation.auc"
    figure = Figure(figsize=(8, 1.2 + 0.32 * len(variants)), layout="constrained")
    axes = figure.subplots()
    for row, variant in enumerate(variants):
        values = variant.values(key)
        mean, deviation = mean_and_deviation(values)
        if mean is None:
            text, place = "failed" if variant.failed else "not run", ("axes fraction", "data")
            axes.annotate(text, (0.01, row), va="center", color="0.5", xycoords=place)
            continue
        axes.errorbar(mean, row, xerr=deviation or 0, fmt="o", color="C0", capsize=3)
        axes.plot(values, [row + 0.22] * len(values), ".", color="C1", markersize=5)
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants])
    axes.set_ylim(len(variants) - 0.5, -0.5)
    axes.set(xlabel=f"{key.replace('.auc', ' AUC')}: mean ± standard deviation (blue), single seeds (orange)")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
