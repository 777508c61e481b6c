"""Sets configs side by side: each trained and scored over several seeds; finished runs reused, interrupted ones go on.

DIR/NAME/seedN/ is an ordinary run directory, its outcome is in DIR/NAME/seedN.json. Seeds go round by round, so that a
comparison stopped early compares what it has; the tables are renewed after every run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

from mmctr_jax.config import Config, load_config
from mmctr_jax.console import log
from mmctr_jax.data.items import load_items
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.seeded_run import Run, digests
from mmctr_jax.experiments.tables import System, write_tables
from mmctr_jax.files import writing


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
    plan = [
        (System(path.stem), {seed: load_config(path, [*overrides, f"train.seed={seed}"]) for seed in seeds})
        for path in paths
    ]
    return run_all(plan, seeds, out, lambda: write_tables([system for system, _ in plan], out))


_WRITE_SECONDS = 10.0
Plan = list[tuple[System, dict[int, Config]]]  # systems, each with its configs by seed


def run_all(
    plan: Plan, seeds: list[int], out: Path, write_results: Callable[[], None], score_test: bool = True
) -> bool:
    """Runs what is not done yet, round by round, filling the systems' results.

    `write_results` is called after every run, but not again within ten seconds, and at the end.
    Returns whether all is done (False: interrupted). Raises: InputError, before any training where data are wrong.
    """
    known: dict[str, str] = {}
    todo = []
    for seed in seeds:
        for system, configs in plan:
            run = Run(out / system.name / f"seed{seed}", configs[seed], digests(configs[seed], known, score_test))
            done = run.result()
            if done is None:
                todo.append((system, seed, run))
            else:
                system.results[seed] = done
    log.info(f"{len(seeds) * len(plan) - len(todo)} runs are done already, {len(todo)} to go.")
    _check_data({system.name: run.config for system, _, run in todo}.values(), score_test)
    with writing(out, "name another folder with --out"):
        out.mkdir(parents=True, exist_ok=True)
    written = -math.inf
    try:
        for number, (system, seed, run) in enumerate(todo, 1):
            log.info(f"Run {number} of {len(todo)}: {system.name}, seed {seed}.")
            result = run.go(score_test)
            if result is None:
                return False
            system.results[seed] = result
            jax.clear_caches()  # compiled programs of a model that is done with
            if time.monotonic() - written > _WRITE_SECONDS:
                write_results()
                written = time.monotonic()
        return True
    finally:
        write_results()


def _check_data(configs: Iterable[Config], score_test: bool) -> None:
    """Finds what is wrong with items, codes or test labels now, not hours later when a run gets to them."""
    tests = set()
    for config in configs:
        load_items(config.data.item_info, config.features, config.data.cache_dir)
        if score_test:
            tests.add((config.data.test, config.data.test_labels, config.features.label))
    for test, labels, name in tests:
        if test is None or read_labels(part_files(test), name, labels) is None:
            log.warning("No test labels (data.test, data.test_labels): only validation results will be compared.")
