"""Sets configs side by side: each trained and scored over several seeds; finished runs reused, interrupted ones go on.

DIR/NAME/seedN/ is an ordinary run directory, its outcome is in DIR/NAME/seedN.json. Seeds go round by round, so that a
comparison stopped early compares what it has; the tables are renewed after every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from mmctr_jax import run_dir
from mmctr_jax.compare.tables import System, write_tables
from mmctr_jax.config import Config, first_difference, load_config, parse_config
from mmctr_jax.console import log, show
from mmctr_jax.data.cache import digest_of_files
from mmctr_jax.data.items import load_items
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.files import write_atomically
from mmctr_jax.prediction import predict
from mmctr_jax.training import train


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
            if result is not None and not all(isinstance(result.get(k, {}), dict) for k in ("test", "validation")):
                raise TypeError
        except FileNotFoundError:
            if run_dir.is_started(self.directory):
                raise InputError(f"{self.directory} is not a run of this comparison; name another --out.") from None
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
        record = {"config": self.config.model_dump(mode="json"), "data": self.data, "result": result}
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
