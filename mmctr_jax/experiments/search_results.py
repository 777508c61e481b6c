"""What a search leaves: search.md, trials.csv, best.yaml and search.png, renewed after every trial."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from mmctr_jax.config import to_yaml
from mmctr_jax.console import show
from mmctr_jax.experiments.space import in_table, label
from mmctr_jax.experiments.study import FrozenTrial, Study, TrialState
from mmctr_jax.experiments.tables import as_csv
from mmctr_jax.files import write_atomically
from mmctr_jax.runs.recorder import save_figure

_WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def write_results(study: Study, picture: bool) -> None:
    """All of it; the picture, which takes longest, only where asked for."""
    importances, out = study.importances(), study.out
    write_atomically(out / "search.md", _markdown(study, importances))
    write_atomically(out / "trials.csv", _csv(study))
    if study.best:
        write_atomically(out / "best.yaml", _winner(study, study.best))
    if picture:
        _draw(study, importances, out / "search.png")


def _result(trial: FrozenTrial) -> dict[str, Any]:
    return trial.user_attrs.get("result", {})


def _auc(trial: FrozenTrial) -> float | None:
    """Best validation AUC, of pruned trials as far as they came."""
    return _result(trial).get("validation", {}).get("auc")


def _winner(study: Study, best: FrozenTrial) -> str:
    config = study.space.config(study.values(best))
    head = f"# Trial {best.number} of {len(study.done)}: validation AUC {show(best.value)}.\n"
    return f"{head}#   python train.py --config {study.out / 'best.yaml'} --run-dir RUN_DIR\n{to_yaml(config)}"


def _state(trial: FrozenTrial) -> str:
    word = _WORDS[trial.state]
    if "same_as" in trial.user_attrs:
        word += f", as trial {trial.user_attrs['same_as']}"
    failed = _result(trial).get("failed")
    return f"{word}: {failed}" if failed else word


def _markdown(study: Study, importances: dict[str, float]) -> str:
    counts = Counter(_WORDS[trial.state] for trial in study.trials)
    best, values = study.best, {}
    lines = [f"# {study.out.resolve().name}", "", ", ".join(f"{n} {word}" for word, n in counts.items()) + ".", ""]
    if best:
        values = study.values(best)
        metrics = [f"{name} {show(value)}" for name, value in _result(best)["validation"].items()]
        lines += [f"Best: trial {best.number}, validation {', '.join(metrics)}; its config is best.yaml.", ""]
        test = study.optuna.user_attrs.get("test", {})
        if test.get("trial") == best.number:
            metrics = [f"{name} {show(value)}" for name, value in test["metrics"].items()]
            lines += [f"Test, scored once with it: {', '.join(metrics) or 'its file has no labels'}.", ""]
    lines += ["| field | importance | best value |", "|---|---|---|"]
    for name in sorted(study.space.fields, key=lambda name: -importances.get(name, 0)):
        share = f"{importances[name]:.2f}" if name in importances else "–"
        lines.append(f"| {name} | {share} | {in_table(label(values[name])) if best else '–'} |")
    names = list(study.space.fields)
    lines += ["", f"| trial | validation AUC | logloss | epochs | minutes | {' | '.join(names)} | |"]
    lines.append("|" + "---|" * (len(names) + 6))
    for trial in sorted(study.trials, key=lambda trial: (-(_auc(trial) or 0), trial.number)):
        result, values = _result(trial), study.values(trial)
        cells = [str(trial.number), show(_auc(trial)), show(result.get("validation", {}).get("logloss"))]
        cells.append(f"{result['epochs']:.1f}" if "epochs" in result else "–")
        cells.append(f"{result['seconds'] / 60:.1f}" if "seconds" in result else "–")
        cells += [label(values[name]) if name in values else "–" for name in names]
        lines.append(f"| {' | '.join(in_table(cell) for cell in [*cells, _state(trial)])} |")
    return "\n".join(lines) + "\n"


def _csv(study: Study) -> str:
    names = list(study.space.fields)
    rows = []
    for trial in study.trials:
        result, values = _result(trial), study.values(trial)
        validation = result.get("validation", {})
        row = [trial.number, _WORDS[trial.state], *(validation.get(name) for name in ("auc", "logloss", "gauc"))]
        row += [result.get(name) for name in ("epochs", "best_step", "seconds", "parameters")]
        row += [label(values[name]) if name in values else None for name in names]
        rows.append([*row, trial.user_attrs.get("same_as"), result.get("failed")])
    header = ["trial", "state", "validation_auc", "validation_logloss", "validation_gauc", "epochs", "best_step"]
    return as_csv([*header, "seconds", "parameters", *names, "same_as", "failed"], rows)


def _draw(study: Study, importances: dict[str, float], path: Path) -> None:
    """Left: each trial's validation AUC and the best so far. Right: the fields' importances."""
    figure, (history, bars) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained", width_ratios=[3, 2])
    trials = [trial for trial in study.trials if _auc(trial) is not None]
    for state, style, colour in ((TrialState.COMPLETE, "o", "C0"), (TrialState.PRUNED, "x", "0.6")):
        chosen = [trial for trial in trials if trial.state == state]
        if chosen:
            places = [trial.number for trial in chosen]
            history.plot(places, [_auc(t) for t in chosen], style, color=colour, label=_WORDS[state])
    failed = [trial.number for trial in study.trials if trial.state == TrialState.FAIL]
    if failed:
        floor = min((_auc(trial) for trial in trials), default=0.5)
        history.plot(failed, [floor] * len(failed), "x", color="C3", label="failed (no AUC)")
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    best = [max(t.value for t in complete[: i + 1]) for i in range(len(complete))]
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
