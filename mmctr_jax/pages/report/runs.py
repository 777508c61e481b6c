"""Run directories → what they say of themselves, and the scores of their rows. Nothing is written into them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmctr_jax.console import log
from mmctr_jax.data.cache import Split, load_split, read_labelled
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.numbering import check_same_numbering, numbering_of
from mmctr_jax.data.parquet import count_rows, part_files, read_keys
from mmctr_jax.errors import InputError
from mmctr_jax.pages.figures import legend_labels
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.remote import shown
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied
from mmctr_jax.runs.summary import Summary

SPLITS = ("valid", "test")
GOING = "still going"
_TRIES = 3  # at a checkpoint that a training is about to replace
_WAIT_SECONDS = 2.0
_CURVES = {  # title → kind and key of the records
    "training loss": ("train", "loss"),
    "validation logloss": ("validation", "logloss"),
    "validation AUC": ("validation", "auc"),
    "learning rate": ("train", "learning_rate"),
}


@dataclass(frozen=True)
class Scored:
    """Rows with labels, and a run's scores of them."""

    rows: Split
    users: np.ndarray | None  # (rows,) int64 codes; None where not known
    logits: np.ndarray  # (rows,) float32
    calibrated: np.ndarray | None = None  # (rows,) float64 logits; None without a calibration, and for valid


class Run:
    """What a run directory holds, as far as it can be read."""

    def __init__(self, directory: Path, name: str, label: str, number: int):
        """Reads all but rows. Raises: InputError if it is no run directory.

        label: the name as a legend has room for it. number: its place among the runs of the page.
        """
        self.directory, self.name, self.label, self.number = directory, name, label, number
        run = RunDirectory(directory)
        self.config, self.metadata, records = run.read_config(), run.read_metadata(), run.read_records()
        self.text = run.config_file.read_text(encoding="utf-8")
        going, summary = run.is_locked, run.read_summary()
        trained = records[-1]["step"] if records else None
        if going or (summary and summary.steps < (trained or 0)):
            summary = None  # at most the one written before the run was resumed
        state = summary.stopped_because if summary else "without a summary; train.log may say why"
        self.summary: Summary | None = summary  # None where there is none of what was trained
        self.state = "not trained: converted weights" if self.metadata.get("converted") else GOING if going else state
        self.last = next((r for r in reversed(records) if r["kind"] == "train"), {})  # record of training, if any
        self.best = next((r for r in reversed(records) if r.get("improved")), {})  # validation that improved, if any
        self.steps: int | None = summary.steps if summary else trained  # so far
        self.epochs: float | None = summary.epochs if summary else self.last.get("epoch")  # so far
        self.curves = {  # title → [(step, value)]
            title: [(r["step"], r[key]) for r in records if r["kind"] == kind and r.get(key) is not None]
            for title, (kind, key) in _CURVES.items()
        }
        self.notes: list[str] = []  # what is missing, and why
        self.file_rows: dict[str, int] = {}  # train, valid, test; those that are there
        self.users: int | None = None  # different ones in train; None where not known
        self.step: int | None = None  # of the checkpoint that gave the scores
        self.scores: dict[str, Scored] = {}  # valid, test
        self.train: Split | None = None  # its rows, if anything is scored

    @contextmanager
    def noting(self, what: str) -> Iterator[None]:
        """What cannot be read in here becomes a note: `what`, and why."""
        try:
            yield
        except (InputError, OSError) as error:
            self.notes.append(f"{what}: {error}")


def read_runs(directories: list[Path]) -> list[Run]:
    """Named by their directories; by their paths where names repeat.

    Raises: InputError if one is no run directory, or is given twice. What else is missing is told in the runs' notes.
    """
    here = [copied(directory) for directory in directories]
    places = [directory.resolve() for directory in here]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise InputError(f"Run directory {shown(directories[i])} is given twice; name each run once.")
    last = [place.name for place in places]
    names = [shown(d) if last.count(name) > 1 else name for d, name in zip(directories, last, strict=True)]
    runs = []
    for number, named in enumerate(zip(here, names, legend_labels(names), strict=True)):
        try:
            runs.append(Run(*named, number))
        except (OSError, RuntimeError) as error:  # names that are too long, links that lead nowhere
            raise InputError(f"Run directory {named[0]} cannot be read: {error}.") from None
    for run in runs:
        for split in ("train", *SPLITS):
            if path := getattr(run.config.data, split):
                with suppress(InputError):  # said where it is missed
                    run.file_rows[split] = count_rows(part_files(path))
        if "train" in run.file_rows and (users := _read_users(run, "train")) is not None:
            run.users = len(np.unique(users))
        with run.noting("Nothing is scored"):
            _score(run)
    return runs


def _read_users(run: Run, split: str) -> np.ndarray | None:
    files = part_files(getattr(run.config.data, split))
    with run.noting("Users are not told apart"):
        return read_keys(files, run.config.features.user)


def _score(run: Run) -> None:
    predictor, calibrated = _load(run), None
    run.step = predictor.step
    with run.noting("Nothing is calibrated"):
        calibrated = predictor.calibration
    for split in (split for split in SPLITS if getattr(run.config.data, split)):
        with run.noting(f"Rows of {split} are not scored"):
            rows = _read_rows(run, split)
            log.info(f"Scoring {getattr(run.config.data, split)} with {run.directory}, step {predictor.step:,}.")
            logits = predictor.score_split(rows)
            if broken := np.count_nonzero(~np.isfinite(logits)):
                model = f"the model at step {predictor.step:,}"
                raise InputError(f"{model} gives {broken:,} rows a score that is not finite.")
            # The calibration was fitted to valid.
            fitted = calibrated.apply(logits) if calibrated is not None and split == "test" else None
            run.scores[split] = Scored(rows, _read_users(run, split), logits, fitted)
    if run.scores:
        with run.noting("No AUC by popularity, nor by new against known items"):
            run.train = _read_rows(run, "train")


def _load(run: Run) -> Predictor:
    """Tried again where the training may just have replaced the checkpoint."""
    if not RunDirectory(run.directory).has_checkpoint:
        raise InputError(f"{run.directory} has no checkpoint yet.")
    for _ in range(_TRIES - 1 if run.state == GOING else 0):
        with suppress(InputError, OSError):
            return Predictor.load(run.directory)
        time.sleep(_WAIT_SECONDS)
    return Predictor.load(run.directory)


def _read_rows(run: Run, split: str) -> Split:
    """With labels. Raises InputError where rows or labels are missing."""
    data, features = run.config.data, run.config.features
    path, labels = getattr(data, split), data.test_labels
    check_same_numbering(numbering_of(path), path, run.metadata.get("numbering"), run.directory)
    if split != "test":
        rows = read_labelled(path, features, data.cache_dir, training=split == "train")
        if run.metadata["data"].get(split) not in (None, rows.fingerprint):
            as_now = f"what is shown of {split} is of the file as it is now"
            run.notes.append(f"{path} has changed since training; {as_now}.")
        return rows
    if labels and not Path(labels).exists():
        raise InputError(f"{labels}, the config's data.test_labels, does not exist.")
    known = read_labels(part_files(path), features.label, labels, features.id_columns)
    if known is None:
        raise InputError(f"{path} has no labels, and the config names no data.test_labels.")
    return replace(load_split(path, features, None, with_labels=False), label=known)
