"""Several configs, each trained over several seeds. Finished runs are reused, interrupted ones continue.

OUT/NAME/seedN/ is an ordinary run directory, and its result is in OUT/NAME/seedN.json. All configs get one seed before
any gets the next, so that results are comparable whenever the runs are stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from mmctr_jax.config import Config
from mmctr_jax.console import log
from mmctr_jax.data.cache import load_split
from mmctr_jax.data.items import load_items
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.seeded_run import Run, digests
from mmctr_jax.files import writing

_WRITE_SECONDS = 10.0  # at least, between two writings of the results


def value_of(result: dict[str, Any], key: str) -> Any:
    """What the result of a run has under `key`, such as `seconds` or `test.auc`; None if it has no such value."""
    part, _, name = key.rpartition(".")
    return (result.get(part) or {} if part else result).get(name)


@dataclass
class Variant:
    """A config under its name, and the results of its runs so far."""

    name: str
    configs: dict[int, Config]  # by seed
    results: dict[int, dict[str, Any]] = field(default_factory=dict)  # by seed, as `seeded_run.Run` gives them

    def values(self, key: str) -> list[Any]:
        """`value_of` of each run that has it."""
        found = [value_of(result, key) for result in self.results.values()]
        return [value for value in found if value is not None]

    @property
    def failed(self) -> int:
        """How many of its runs failed."""
        return sum("failed" in result for result in self.results.values())


def train_variants(
    variants: list[Variant], seeds: list[int], out: Path, write_results: Callable[[], None], score_test: bool = True
) -> bool:
    """Trains what is not done yet and fills in the variants' results.

    Args:
      write_results: called at the end, and after a run where the last call is ten seconds ago.
      score_test: whether each run also scores the test file.
    Returns: whether all is done (False: interrupted, having saved).
    Raises: InputError, before any training, where the data are wrong or `out` has other runs.
    """
    known: dict[str, str] = {}
    todo = []
    for seed in seeds:
        for variant in variants:
            config = variant.configs[seed]
            run = Run(out / variant.name / f"seed{seed}", config, digests(config, known, score_test))
            result = run.result()
            if result is None:
                todo.append((variant, seed, run))
            else:
                variant.results[seed] = result
    log.info(f"{len(seeds) * len(variants) - len(todo)} runs are done already, {len(todo)} to go.")
    check_data({variant.name: run.config for variant, _, run in todo}.values(), score_test)

    def write() -> None:
        with writing(out, "make room there, or name another folder with --out"):
            out.mkdir(parents=True, exist_ok=True)
            write_results()

    written, finished = -math.inf, True
    try:
        for number, (variant, seed, run) in enumerate(todo, 1):
            log.info(f"Run {number} of {len(todo)}: {variant.name}, seed {seed}.")
            result = run.go(score_test)
            if result is None:
                finished = False
                break
            variant.results[seed] = result
            jax.clear_caches()  # the compiled programs of this run are of no use to the next
            if time.monotonic() - written > _WRITE_SECONDS:
                write()
                written = time.monotonic()
    except BaseException:
        with suppress(InputError):  # what ended it is what is to be said
            write()
        raise
    write()
    return finished


def check_data(configs: Iterable[Config], score_test: bool) -> None:
    """Finds what is wrong with items or test files now, not hours later when a run reads them."""
    tests, read_as = set(), {}
    for config in configs:
        features = load_items(config.data.item_info, config.features, config.data.cache_dir).features
        if score_test:
            tests.add((config.data.test, config.data.test_labels, features.label, features.id_columns))
            read_as[config.data.test, features.model_dump_json()] = features
    for (test, _), features in read_as.items():
        if test is not None:
            load_split(test, features, None, with_labels=False)
    for test, labels, name, id_columns in tests:
        if test is None or read_labels(part_files(test), name, labels, id_columns) is None:
            log.warning("No test labels (data.test, data.test_labels): only validation results will be compared.")
