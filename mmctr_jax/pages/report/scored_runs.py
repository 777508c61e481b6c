"""Run directories → what they say of themselves, and the scores of their rows. Nothing is written into them."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mmctr_jax.config import Config
from mmctr_jax.console import log
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import column_names, count_rows, part_files, read_keys
from mmctr_jax.errors import InputError
from mmctr_jax.pages.report.slices import Seen, read_seen
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory

_TRIES = 3  # at a checkpoint that a training is about to replace
_WAIT_SECONDS = 2.0

GOING = "still going"


@dataclass(frozen=True)
class Scored:
    """Rows with labels, and what a run says of them."""

    rows: Split
    users: np.ndarray | None  # (rows,) int64 codes; None where not known
    logits: np.ndarray  # (rows,) float32
    calibrated: np.ndarray | None = None  # (rows,) float64 logits; None without a calibration, and for valid


@dataclass
class Run:
    name: str
    directory: Path
    config: Config
    text: str  # of config.yaml
    metadata: dict[str, Any]
    records: list[dict[str, Any]]  # of metrics.jsonl
    summary: dict[str, Any]  # empty where there is none of what was trained
    state: str  # GOING, or why it stopped
    file_rows: dict[str, int] = field(default_factory=dict)  # train, valid, test; those that are there
    users: int | None = None  # different ones in train; None where not known
    step: int | None = None  # of the checkpoint that gave the scores
    scores: dict[str, Scored] = field(default_factory=dict)  # valid, test
    seen: Seen | None = None
    notes: list[str] = field(default_factory=list)  # what is missing, and why


def read_runs(directories: list[Path]) -> list[Run]:
    """Named by their directories; by their paths where names repeat.

    Raises: InputError if one is no run directory, or is given twice. What else is missing is told in the runs' notes.
    """
    places = [directory.resolve() for directory in directories]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise InputError(f"Run directory {directories[i]} is given twice; name each run once.")
    last = [place.name for place in places]
    names = [str(d) if last.count(name) > 1 else name for d, name in zip(directories, last, strict=True)]
    runs = []
    for directory, name in zip(directories, names, strict=True):
        try:
            runs.append(_read(directory, name))
        except (OSError, RuntimeError) as error:  # names that are too long, links that lead nowhere
            raise InputError(f"Run directory {directory} cannot be read: {error}.") from None
    for run in runs:
        _count(run)
        _score(run)
    return runs


def _read(directory: Path, name: str) -> Run:
    run = RunDirectory(directory)
    config, metadata = run.read_config(), run.read_metadata()
    going = run.is_locked
    records = run.read_records()
    summary = {} if going else _read_summary(run, records)
    state = GOING if going else summary.get("stopped", "without a summary; train.log may say why")
    if metadata.get("converted"):
        state = "not trained: converted weights"
    text = run.config_file.read_text(encoding="utf-8")
    return Run(name, directory, config, text, metadata, records, summary, state)


def _read_summary(run: RunDirectory, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Empty where there is none, or an older one: that of before a run was resumed, and killed."""
    summary = run.read_summary()
    current = summary is not None and summary.steps >= (records[-1]["step"] if records else 0)
    return summary.to_json() if current else {}


def _count(run: Run) -> None:
    """Rows of the files, and users of train."""
    data, user = run.config.data, run.config.features.user
    for split in ("train", "valid", "test"):
        with suppress(InputError):  # said where it is missed
            if path := getattr(data, split):
                run.file_rows[split] = count_rows(part_files(path))
    if "train" in run.file_rows:
        users = _read_users(run, data.train, user)
        run.users = None if users is None else len(np.unique(users))


def _read_users(run: Run, path: str, column: str) -> np.ndarray | None:
    files = part_files(path)
    if column not in column_names(files):
        return None
    try:
        return read_keys(files, column)
    except InputError as error:
        run.notes.append(f"Users are not told apart: {error}")
        return None


def _score(run: Run) -> None:
    try:
        predictor = _load(run)
    except InputError as error:
        run.notes.append(f"Nothing is scored: {error}")
        return
    run.step = predictor.step
    calibrated = calibration.read(run.directory, predictor.step)
    for split, read in (("valid", _read_valid), ("test", _read_test)):
        try:
            rows = read(run)
            if rows is not None:
                scored = _scored(run, split, rows, predictor)
                if calibrated is not None and split == "test":  # it was fitted to valid
                    scored = replace(scored, calibrated=calibrated.apply(scored.logits))
                run.scores[split] = scored
        except InputError as error:
            run.notes.append(f"Rows of {split} are not scored: {error}")
    if run.scores:
        try:
            run.seen = _read_train(run)
        except InputError as error:
            run.notes.append(f"No AUC by popularity, nor by new against known items: {error}")


def _load(run: Run) -> Predictor:
    """Tried again where the training may just have replaced the checkpoint."""
    folder = RunDirectory(run.directory).checkpoint_folder
    # Looked at here: Orbax would make the folder.
    if not (folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())):
        raise InputError(f"{run.directory} has no checkpoint yet.")
    for left in reversed(range(_TRIES if run.state == GOING else 1)):
        try:
            return Predictor.load(run.directory)
        except (InputError, OSError) as error:
            if not left:
                raise InputError(str(error)) from None
            time.sleep(_WAIT_SECONDS)
    raise AssertionError


def _scored(run: Run, split: str, rows: Split, predictor: Predictor) -> Scored:
    path = getattr(run.config.data, split)
    log.info(f"Scoring {path} with {run.directory}, step {predictor.step:,}.")
    logits = predictor.score(rows)
    broken = np.count_nonzero(~np.isfinite(logits))
    if broken:
        raise InputError(f"the model at step {predictor.step:,} gives {broken:,} rows a score that is not finite.")
    return Scored(rows, _read_users(run, path, run.config.features.user), logits)


def _read_valid(run: Run) -> Split:
    config = run.config
    return _as_trained(run, "valid", load_split(config.data.valid, config.features, config.data.cache_dir, True))


def _read_train(run: Run) -> Seen:
    features = run.config.features
    train = load_split(run.config.data.train, features, run.config.data.cache_dir, True, features.weight)
    return read_seen(_as_trained(run, "train", train), features.num_items)


def _as_trained(run: Run, split: str, rows: Split) -> Split:
    trained_on = run.metadata["data"].get(split)
    if trained_on not in (None, rows.fingerprint):
        path = getattr(run.config.data, split)
        run.notes.append(f"{path} has changed since training; what is shown of {split} is of the file as it is now.")
    return rows


def _read_test(run: Run) -> Split | None:
    """With labels; None where there is no such file, or no labels of it."""
    data, features = run.config.data, run.config.features
    if data.test is None:
        return None
    labels = data.test_labels
    if labels and not Path(labels).exists():
        raise InputError(f"{labels}, the config's data.test_labels, does not exist.")
    known = read_labels(part_files(data.test), features.label, labels)
    if known is None:
        raise InputError(f"{data.test} has no labels, and the config names no data.test_labels.")
    return replace(load_split(data.test, features, None, with_labels=False), label=known)
