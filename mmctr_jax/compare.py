"""Trains and scores several configs over several seeds, and sets their results side by side.

python -m mmctr_jax.compare CONFIG [CONFIG ...] [section.key=value ...] [--seeds 3] --out DIR

DIR/NAME/seedN/ is an ordinary run directory, its outcome is in DIR/NAME/seedN.json; finished runs are reused, an
interrupted one goes on. Seeds go round by round, so that a comparison stopped early compares what it has. After every
run DIR has table.md, table.csv and table.png, a row per config in the order given, and runs.csv, a row per run.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from mmctr_jax import cli
from mmctr_jax.config import Config, first_difference, load_config, parse_config
from mmctr_jax.console import log, show
from mmctr_jax.data.cache import digest_of_files
from mmctr_jax.data.items import load_items
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.interrupt import EXIT_CODE
from mmctr_jax.prediction import predict, read_labels
from mmctr_jax.run_dir import write_atomically
from mmctr_jax.training import train


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
    def diverged(self) -> int:
        return sum("diverged" in result for result in self.results.values())


COLUMNS = ("test.auc", "test.logloss", "validation.auc", "seconds")
RUN_COLUMNS = (*COLUMNS, "test.gauc", "validation.logloss", "parameters", "epochs", "best_step", "samples_per_second")


def mean_and_deviation(values: list[float]) -> tuple[float | None, float | None]:
    """The mean, and the sample's standard deviation where there are two values or more."""
    return (
        statistics.mean(values) if values else None,
        statistics.stdev(values) if len(values) > 1 else None,
    )


def compare(paths: list[Path], overrides: list[str], seeds: list[int], out: Path) -> bool:
    """Runs what is not done yet and writes the tables; returns whether all is done (False: interrupted).

    Raises: InputError, before any training where a config is wrong.
    """
    names = [path.stem for path in paths]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"Two configs are named {twice}; the name is the row of the table, so rename one file.")
    if any(text.partition("=")[0] == "train.seed" for text in overrides):
        raise InputError("train.seed cannot be set for a comparison, which goes through seeds 1 … N of --seeds.")
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; name a folder with --out.")
    plan = [
        (System(path.stem), {seed: load_config(path, [*overrides, f"train.seed={seed}"]) for seed in seeds})
        for path in paths
    ]
    systems = [system for system, _ in plan]
    digests: dict[str, str] = {}
    todo = []
    for seed in seeds:
        for system, configs in plan:
            run = _Run(out / system.name / f"seed{seed}", configs[seed], _digests(configs[seed], digests))
            done = run.result()
            if done is None:
                todo.append((system, seed, run))
            else:
                system.results[seed] = done
    log.info(f"{len(seeds) * len(plan) - len(todo)} runs are done already, {len(todo)} to go.")
    _check_data({system.name: run.config for system, _, run in todo}.values())
    for number, (system, seed, run) in enumerate(todo, 1):
        log.info(f"Run {number} of {len(todo)}: {system.name}, seed {seed}.")
        result = run.go()
        if result is None:
            return False
        system.results[seed] = result
        write_tables(systems, out)
        jax.clear_caches()  # compiled programs of a model that is done with
    write_tables(systems, out)
    return True


def _digests(config: Config, known: dict[str, str]) -> dict[str, str]:
    """What a result depends on besides its config: the contents of the data files. `known`: those read before."""
    digests = {}
    for name in ("train", "valid", "test", "test_labels", "item_info"):
        path = getattr(config.data, name)
        if path:
            if path not in known:
                known[path] = digest_of_files(part_files(path)).hexdigest()
            digests[name] = known[path]
    return digests


def _check_data(configs: Iterable[Config]) -> None:
    """Finds what is wrong with items, codes or test labels now, not hours later when a run gets to them."""
    tests = set()
    for config in configs:
        load_items(config)
        tests.add((config.data.test, config.data.test_labels, config.features.label))
    for test, labels, name in tests:
        if test is None or read_labels(part_files(test), name, labels) is None:
            log.warning("No test labels (data.test, data.test_labels): only validation results will be compared.")


# What may differ between a run's record and what is asked for now: the files' contents are compared, not their paths.
_NO_MATTER = ("data.train", "data.valid", "data.test", "data.test_labels", "data.item_info", "data.cache_dir")
_NO_MATTER += ("train.eval_batch_size", "train.checkpoint_every")


@dataclass(frozen=True)
class _Run:
    """One config with one seed. Its record, beside its run directory, says from the start what it is a run of."""

    directory: Path
    config: Config
    data: dict[str, str]

    @property
    def record(self) -> Path:
        return self.directory.with_suffix(".json")

    def result(self) -> dict[str, Any] | None:
        """The outcome, if the run is finished. Raises InputError if what is there is a run of something else."""
        try:
            record = json.loads(self.record.read_text())
            config, data, result = parse_config(record["config"]), dict(record["data"]), record["result"]
            parts = (
                {} if result is None else {"test": result.get("test", {}), "validation": result.get("validation", {})}
            )
            if not all(isinstance(part, dict) for part in parts.values()):
                raise TypeError
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, InputError):
            raise InputError(f"{self.record} is damaged; remove it and {self.directory}, and start again.") from None
        difference = first_difference(config, self.config, ignore=_NO_MATTER)
        if difference is None and data != self.data:
            name = next(n for n in {**data, **self.data} if data.get(n) != self.data.get(n))
            difference = f"the contents of data.{name}"
        if difference:
            raise InputError(
                f"{self.directory} is a run of something else ({difference}, there ≠ now); "
                "name another folder with --out, or remove that run and its .json."
            )
        return result

    def go(self) -> dict[str, Any] | None:
        """Trains, or goes on, and scores. Null: interrupted, having saved."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self._write(None)
        result = _train_and_score(self.config, self.directory)
        if result is not None:
            self._write(result)
        return result

    def _write(self, result: dict[str, Any] | None) -> None:
        config = json.loads(self.config.model_dump_json())
        record = {"config": config, "data": self.data, "result": result}
        write_atomically(self.record, json.dumps(record, indent=1) + "\n")


def _train_and_score(config: Config, directory: Path) -> dict[str, Any] | None:
    try:
        summary = train(config, directory, resume=True)
    except TrainingError as error:
        log.error(f"{error}")
        return {"diverged": str(error)}
    if summary["stopped"] == "interrupted":
        return None
    test = predict(directory, None, None)["metrics"] if config.data.test else {}
    if test:
        log.info("Test " + ", ".join(f"{name} {show(value)}" for name, value in test.items()) + ".")
    return {**summary, "test": test}


# Tables


def write_tables(systems: list[System], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "table.md", markdown(systems))
    write_atomically(out / "table.csv", _csv(*summary_rows(systems)))
    write_atomically(out / "runs.csv", _csv(*run_rows(systems)))
    draw(systems, out / "table.png")


def markdown(systems: list[System]) -> str:
    """Table 2's columns: mean ± standard deviation over the seeds."""
    lines = [
        "| system | test AUC | test logloss | validation AUC | minutes a run | parameters | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    for system in systems:
        cells = [_cell(system.values(key)) for key in COLUMNS[:3]]
        seconds, _ = mean_and_deviation(system.values("seconds"))
        parameters = system.values("parameters")
        cells.append("–" if seconds is None else f"{seconds / 60:.1f}")
        cells.append(f"{parameters[0]:,}" if parameters else "–")
        cells.append(f"{len(system.results)}" + (f", {system.diverged} diverged" if system.diverged else ""))
        lines.append(f"| {system.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    mean, deviation = mean_and_deviation(values)
    if mean is None:
        return "–"
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def summary_rows(systems: list[System]) -> tuple[list[str], list[list[Any]]]:
    header = ["system", "seeds", "diverged", "parameters"]
    header += [f"{key.replace('.', '_')}_{what}" for key in COLUMNS for what in ("mean", "deviation")]
    rows = []
    for system in systems:
        parameters = system.values("parameters")
        row = [system.name, len(system.results), system.diverged, parameters[0] if parameters else None]
        rows.append(row + [value for key in COLUMNS for value in mean_and_deviation(system.values(key))])
    return header, rows


def run_rows(systems: list[System]) -> tuple[list[str], list[list[Any]]]:
    header = ["system", "seed", *(key.replace(".", "_") for key in RUN_COLUMNS), "diverged"]
    rows = []
    for system in systems:
        for seed, result in sorted(system.results.items()):
            one = System(system.name, {seed: result})
            values = [next(iter(one.values(key)), None) for key in RUN_COLUMNS]
            rows.append([system.name, seed, *values, result.get("diverged")])
    return header, rows


def _csv(header: list[str], rows: list[list[Any]]) -> str:
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
                "diverged" if system.diverged else "not run",
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
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
    temporary.replace(path)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mmctr_jax.compare", description="Train and score several configs over several seeds."
    )
    parser.add_argument(
        "configs",
        nargs="+",
        metavar="CONFIG | section.key=value",
        help="YAML files, whose names are the table's rows; and settings for all of them",
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 … N (default: 3)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and tables")
    args = parser.parse_intermixed_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    overrides = [text for text in args.configs if "=" in text]
    paths = [Path(text) for text in args.configs if "=" not in text]
    if not paths:
        parser.error("no config is named")
    try:
        finished = compare(paths, overrides, list(range(1, args.seeds + 1)), args.out)
    except KeyboardInterrupt:  # outside of a training, which saves
        finished = False
    if not finished:
        log.info("Interrupted. To go on: the same command.")
        return EXIT_CODE
    print((args.out / "table.md").read_text(), end="")
    log.info(f"table.md, table.csv, table.png and runs.csv are in {args.out}.")
    return 0


if __name__ == "__main__":
    cli.run_main(main)
