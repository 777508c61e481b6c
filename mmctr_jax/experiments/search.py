"""Tries settings, trial by trial, and keeps the best by validation AUC; a stopped search goes on with the same call."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax

from mmctr_jax.config.schema import parse_config
from mmctr_jax.console import clock, log, show
from mmctr_jax.errors import InputError
from mmctr_jax.experiments.search_results import write_results
from mmctr_jax.experiments.seeded_run import Run, digests
from mmctr_jax.experiments.space import Range, Space, label
from mmctr_jax.experiments.study import Study, Taken
from mmctr_jax.prediction.predict import predict
from mmctr_jax.training.data import load_training_data

_DRAW_SECONDS = 10.0


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
    """Goes on until the search in `out` has so many trials (None: 20, or the whole grid) and writes its results.

    Processes that call this with the same `out` share the trials. sampler: tpe, random or grid. pruning: a trial whose
    validation AUC stays below the median of the trials before it is ended. storage: another place for the study than
    SQLite in `out`, as a URL. score_test: the winner, and nothing else, scores the test file.
    Returns whether all is done (False: interrupted, having saved). Raises: InputError, before any training where the
    config refuses a value or the data are wrong; TrainingError where another attempt may end well.
    """
    if sampler == "grid" and any(isinstance(field, Range) for field in space.fields.values()):
        name = next(name for name, field in space.fields.items() if isinstance(field, Range))
        raise InputError(f"{space.where}: {name} is a range, which has no grid; list its values.")
    space.check()
    base = parse_config(space.settings)
    if score_test and base.data.test is None:
        raise InputError("--test scores the test file, and the config names none (data.test); name it there.")
    load_training_data(base)
    study = Study(space, out, sampler, pruning, seed, storage)
    most = trials or (space.size if sampler == "grid" else 20)
    with study.reached():
        finished = _go(study, most)
        if finished:
            with study.alone():
                if score_test:
                    _score_test(study)
                write_results(study, picture=True)
    return finished


def _go(study: Study, most: int) -> bool:
    """Trial by trial until there are so many; False: interrupted."""
    known: dict[str, str] = {}
    started = drawn = time.monotonic()
    here = 0
    while (taken := study.take(most)) is not None:
        left = most - len(study.done)
        eta = f"; ETA {clock((time.monotonic() - started) / here * left)}" if here else ""
        best = f"; best so far {show(study.best.value)}, trial {study.best.number}" if study.best else ""
        values = ", ".join(f"{name} {label(value)}" for name, value in taken.values.items())
        log.info(f"Trial {taken.number} ({len(study.done) + 1} of {most}): {values}{best}{eta}.")
        if not _try(study, taken, known):
            return False
        taken.release()
        here += 1
        draw = time.monotonic() - drawn > _DRAW_SECONDS
        with study.alone():
            write_results(study, picture=draw)
        drawn = time.monotonic() if draw else drawn
        jax.clear_caches()  # compiled programs of a model that is done with
    return True


def _try(study: Study, taken: Taken, known: dict[str, str]) -> bool:
    """Runs a trial, or what is left of it; False: interrupted."""
    before = study.same_before(taken)
    if before is not None:
        log.info(f"The same values as trial {before.number}, whose result it takes.")
        study.tell(taken, before.user_attrs["result"], same_as=before.number)
        return True
    try:
        config = study.space.config(taken.values)
    except InputError as error:  # values that only together are refused
        log.error(f"{error}")
        study.tell(taken, {"failed": str(error)})
        return True
    run = Run(study.out / "trials" / f"{taken.number:04d}", config, digests(config, known, with_test=False))
    result = run.result()
    if result is None:
        result = run.go(score_test=False, end_early=lambda number, auc: study.report(taken, number, auc))
    if result is None:
        return False
    study.tell(taken, result)
    return True


def _score_test(study: Study) -> None:
    """Scores the test file with the winner, once; only when no other process may yet find a better one."""
    best = study.best
    if best is None:
        log.warning("No trial is complete: there is no winner to score the test file with.")
        return
    unfinished = len(study.trials) - len(study.done)
    if unfinished:
        log.warning(f"{unfinished} trials are still running elsewhere; the last process to end scores the test file.")
        return
    scored: dict[str, Any] = study.optuna.user_attrs.get("test", {})
    if scored.get("trial") != best.number:
        metrics = predict(study.out / "trials" / f"{best.number:04d}", None, None)["metrics"]
        study.optuna.set_user_attr("test", {"trial": best.number, "metrics": metrics})
