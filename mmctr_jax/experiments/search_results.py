"""The results of a search: search.md, trials.csv, best.yaml and search.png, renewed after every trial.

Optuna's own table and pictures would show less: its dataframe has a result as one cell and no AUC of a pruned trial's
best validation, its history leaves out pruned and failed trials, and each of its pictures is a figure of its own.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmctr_jax.config import to_yaml
from mmctr_jax.console import show
from mmctr_jax.experiments.space import label
from mmctr_jax.experiments.study import FrozenTrial, Study, TrialState
from mmctr_jax.experiments.tables import csv_table, markdown_table
from mmctr_jax.experiments.variants import value_of
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.recorder import save_figure

_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
_IN_CSV = ("validation.auc", "validation.logloss", "validation.gauc", "epochs", "best_step", "seconds", "parameters")


def write_results(study: Study, picture: bool) -> None:
    """Writes all of them; the picture, which takes longest, only where asked for."""
    importances, out = study.importances(), study.out
    write_atomically(out / "search.md", _markdown(study, importances))
    write_atomically(out / "trials.csv", _csv(study))
    if study.best:
        write_atomically(out / "best.yaml", _winner(study, study.best))
    if picture:
        _draw(study, importances, out / "search.png")


def _value(trial: FrozenTrial, key: str) -> Any:
    return value_of(trial.user_attrs.get("result", {}), key)


def _auc(trial: FrozenTrial) -> float | None:
    """The best validation AUC; of a pruned trial, the best until then."""
    return _value(trial, "validation.auc")


def _winner(study: Study, best: FrozenTrial) -> str:
    config = study.space.config(study.values(best))
    config = config.model_copy(update={"data": config.data.absolute})  # to be used from any folder
    head = f"# Trial {best.number} of {len(study.finished)}: validation AUC {show(best.value)}.\n"
    return f"{head}#   mmctr train --config {study.out / 'best.yaml'} --run-dir RUN_DIR\n{to_yaml(config)}"


def _state(trial: FrozenTrial) -> str:
    word = _WORDS[trial.state]
    if "same_as" in trial.user_attrs:
        word += f", as trial {trial.user_attrs['same_as']}"
    failed = _value(trial, "failed")
    return f"{word}: {failed}" if failed else word


def _markdown(study: Study, importances: dict[str, float]) -> str:
    counts = Counter(_WORDS[trial.state] for trial in study.trials)
    names, best = list(study.space.fields), study.best
    text = f"# {study.out.resolve().name}\n\n{', '.join(f'{n} {word}' for word, n in counts.items())}.\n\n"
    if best:
        metrics = _metrics(_value(best, "validation"))
        text += f"Best: trial {best.number}, validation {metrics}; its config is best.yaml.\n\n"
        test = study.optuna.user_attrs.get("test", {})
        if test.get("trial") == best.number:
            file = test.get("file", "the config's file")  # of a search by an earlier version
            text += f"Test ({file}), scored once with it: {_metrics(test['metrics']) or 'it has no labels'}.\n\n"
    best_values = study.values(best) if best else {}
    fields = [
        [
            name,
            f"{importances[name]:.2f}" if name in importances else "–",
            label(best_values[name]) if best else "–",
        ]
        for name in sorted(names, key=lambda name: -importances.get(name, 0))
    ]
    rows = []
    for trial in sorted(study.trials, key=lambda trial: (-(_auc(trial) or 0), trial.number)):
        epochs, seconds, values = _value(trial, "epochs"), _value(trial, "seconds"), study.values(trial)
        row = [str(trial.number), show(_auc(trial)), show(_value(trial, "validation.logloss"))]
        row.append("–" if epochs is None else f"{epochs:.1f}")
        row.append("–" if seconds is None else f"{seconds / 60:.1f}")
        row += [label(values[name]) if name in values else "–" for name in names]
        rows.append([*row, _state(trial)])
    trials = markdown_table(["trial", "validation AUC", "logloss", "epochs", "minutes", *names, ""], rows)
    return f"{text}{markdown_table(['field', 'importance', 'best value'], fields)}\n{trials}"


def _metrics(metrics: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {show(value)}" for name, value in metrics.items())


def _csv(study: Study) -> str:
    names, rows = list(study.space.fields), []
    for trial in study.trials:
        values = study.values(trial)
        row = [trial.number, _WORDS[trial.state], *(_value(trial, key) for key in _IN_CSV)]
        row += [label(values[name]) if name in values else None for name in names]
        rows.append([*row, trial.user_attrs.get("same_as"), _value(trial, "failed")])
    columns = [key.replace(".", "_") for key in _IN_CSV]
    return csv_table(["trial", "state", *columns, *names, "same_as", "failed"], rows)


def _draw(study: Study, importances: dict[str, float], path: Path) -> None:
    """Left: each trial's validation AUC and the best so far. Right: the fields' importances."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    history, bars = figure.subplots(1, 2, width_ratios=[3, 2])
    trials = [trial for trial in study.trials if _auc(trial) is not None]
    for state, style, colour in ((TrialState.COMPLETE, "o", "C0"), (TrialState.PRUNED, "x", "0.6")):
        chosen = [trial for trial in trials if trial.state == state]
        if chosen:
            numbers = [trial.number for trial in chosen]
            history.plot(numbers, [_auc(trial) for trial in chosen], style, color=colour, label=_WORDS[state])
    failed = [trial.number for trial in study.trials if trial.state == TrialState.FAIL]
    if failed:
        floor = min((_auc(trial) for trial in trials), default=0.5)
        history.plot(failed, [floor] * len(failed), "x", color="C3", label="failed (no AUC)")
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = list(itertools.accumulate((trial.value for trial in complete), max))
    history.step([trial.number for trial in complete], best, where="post", color="C1", label="best so far")
    history.set(title="Validation AUC", xlabel="trial")
    history.locator_params(axis="x", integer=True)
    history.legend()
    history.grid(alpha=0.3)
    names = sorted(importances, key=importances.get)
    bars.barh(range(len(names)), [importances[name] for name in names], color="C0")
    bars.set_yticks(range(len(names)), names)
    bars.set(title="Importance (PED-ANOVA)")
    bars.grid(alpha=0.3, axis="x")
    save_figure(figure, path)
