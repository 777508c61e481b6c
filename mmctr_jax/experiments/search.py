"""Tries settings, trial by trial, and keeps the best by validation AUC; a stopped search can be continued."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax

from mmctr_jax.config import Config, parse_config
from mmctr_jax.console import clock, log, show
from mmctr_jax.data.cache import digest_of_files
from mmctr_jax.data.parquet import part_files
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.search_results import write_results
from mmctr_jax.experiments.seeded_run import Run, digests
from mmctr_jax.experiments.space import Range, Space, label
from mmctr_jax.experiments.study import ClaimedTrial, Study
from mmctr_jax.experiments.variants import check_data
from mmctr_jax.prediction.predict import predict
from mmctr_jax.remote import shown
from mmctr_jax.training.data import load_training_data

_DRAW_SECONDS = 10.0  # at least, between two pictures


def search(
    space: Space,
    out: Path,
    *,
    sampler: str = "tpe",
    trials: int | None = None,
    pruning: bool = True,
    seed: int = 1,
    storage: str | None = None,
    score_test: bool = False,
) -> bool:
    """Runs the search in `out` until it has enough trials, and writes its results, see `search_results`.

    Processes that call this with the same `out` share the trials.

    Args:
      sampler: what to try next: tpe, random or grid.
      trials: how many in all, of every process; None: 20, or the whole grid.
      pruning: whether a trial is ended whose validation AUC stays below the median of the trials before it.
      seed: of the sampler, not of the trainings.
      storage: Optuna's URL of another place for the study than SQLite in `out`.
      score_test: whether the winner, and nothing else, scores the test file.
    Returns: whether all is done (False: interrupted, having saved).
    Raises: InputError, before any training, where the config refuses a value or the data are wrong; TrainingError where
      another attempt may end well.
    """
    if sampler == "grid" and any(isinstance(field, Range) for field in space.fields.values()):
        name = next(name for name, field in space.fields.items() if isinstance(field, Range))
        raise InputError(f"{space.where}: {name} is a range, which has no grid; list its values.")
    space.check()
    base = parse_config(space.settings)
    if score_test and base.data.test is None:
        raise InputError("--test scores the test file, and the config names none (data.test); name it there.")
    load_training_data(base)
    if score_test:
        check_data([base], score_test=True)
    study = Study(space, out, sampler, pruning, seed, storage)
    most = trials or (space.size if sampler == "grid" else 20)
    with study.storage_errors():
        finished = _run_trials(study, most)
        if finished:
            with study.exclusive():
                if score_test:
                    _score_test(study, base)
                write_results(study, picture=True)
    return finished


def _run_trials(study: Study, most: int) -> bool:
    """Trial by trial until there are `most`; False: interrupted."""
    known: dict[str, str] = {}
    started = drawn = time.monotonic()
    here = 0
    while (claimed := study.claim(most)) is not None:
        try:
            finished = len(study.finished)
            eta = f"; ETA {clock((time.monotonic() - started) / here * (most - finished))}" if here else ""
            best = f"; best so far {show(study.best.value)}, trial {study.best.number}" if study.best else ""
            values = ", ".join(f"{name} {label(value)}" for name, value in claimed.values.items())
            log.info(f"Trial {claimed.number} ({finished + 1} of {most}): {values}{best}{eta}.")
            result = _run_trial(study, claimed, known)
        finally:
            claimed.release()
        if result is None:
            return False
        here += 1
        draw = time.monotonic() - drawn > _DRAW_SECONDS
        with study.exclusive():
            write_results(study, picture=draw)
        drawn = time.monotonic() if draw else drawn
        jax.clear_caches()  # the compiled programs of this trial are of no use to the next
    return True


def _run_trial(study: Study, claimed: ClaimedTrial, known: dict[str, str]) -> dict[str, Any] | None:
    """Runs a trial, or what is left of it, and tells the study its result; None: interrupted."""
    before = study.earlier_with_same_values(claimed)
    if before is not None:
        log.info(f"The same values as trial {before.number}, whose result it takes.")
        result = before.user_attrs["result"]
        study.tell(claimed, result, same_as=before.number)
        return result
    try:
        config = study.space.config(claimed.values)
    except InputError as error:  # values that are refused only together
        log.error(f"{error}")
        result = {"failed": str(error)}
    else:
        run = Run(study.out / "trials" / f"{claimed.number:04d}", config, digests(config, known, with_test=False))
        result = run.result()
        if result is None:
            result = run.go(score_test=False, end_early=lambda number, auc: study.report(claimed, number, auc))
    if result is not None:
        study.tell(claimed, result)
    return result


def _score_test(study: Study, base: Config) -> None:
    """Scores the test file with the winner, once; only when no other process may yet find a better one."""
    best = study.best
    if best is None:
        log.warning("No trial is complete: there is no winner to score the test file with.")
        return
    unfinished = len(study.trials) - len(study.finished)
    if unfinished:
        log.warning(f"{unfinished} trials are still running elsewhere; the last process to end scores the test file.")
        return
    test = [digest_of_files(part_files(path)).hexdigest() for path in (base.data.test, base.data.test_labels) if path]
    scored: dict[str, Any] = study.optuna.user_attrs.get("test", {})
    if (scored.get("trial"), scored.get("data")) != (best.number, test):
        run = study.out / "trials" / f"{best.number:04d}"  # whose own config may name a test file of before
        metrics = predict(run, base.data.test, None, labels=base.data.test_labels)["metrics"]
        found = {"trial": best.number, "data": test, "file": shown(base.data.test), "metrics": metrics}
        study.optuna.set_user_attr("test", found)
