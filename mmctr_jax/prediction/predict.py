"""Scoring a file with a trained model, from the run directory alone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from mmctr_jax.config import Config
from mmctr_jax.console import log, show
from mmctr_jax.data.cache import read_labelled
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.numbering import Numbering, check_same_numbering, numbering_of, original
from mmctr_jax.data.parquet import column_names, part_files, read_keys, read_whole
from mmctr_jax.devices.flags import plain_jax
from mmctr_jax.errors import InputError
from mmctr_jax.files import writing
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.calibration import Calibration
from mmctr_jax.prediction.output import check_output, write_scores
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.remote import is_elsewhere, is_remote, local, shown
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied
from mmctr_jax.training import metrics


@plain_jax()
def predict(
    directory: str | Path,
    data: str | Path | None = None,
    out: str | Path | None = None,
    task: str | None = None,
    labels: str | Path | None = None,
    item_info: str | Path | None = None,
    calibrate: str | None = None,
    original_ids: bool = False,
    valid: str | Path | None = None,
) -> dict[str, Any]:
    """Scores `data` (default: the config's test file) into `out` (default: predictions.parquet in the run directory).

    Args:
        directory: The run.
        data: A Parquet file or folder.
        out: Parquet, CSV, or with `task` the challenge's submission.
        task: See `output.check_output`.
        labels: A file of labels in the same row order (default: the config's, for its own test file); without it,
            labels are taken from `data` if it has them.
        item_info: As in `Predictor.load`.
        calibrate: A kind of `calibration.KINDS`, to be fitted and kept in the run directory; "none": scores as the
            model gives them; null: calibrated if that was fitted before.
        original_ids: Ids of users and items as the log had them, by the vocabularies beside the scored file.
        valid: The validation rows to fit a calibration on (default: the config's).

    Returns:
        Rows, seconds, where it was written, and metrics where labels are known (`uncalibrated`, too, where scores are
        calibrated).

    Raises:
        InputError: Nothing was written.
    """
    if valid is not None and calibrate not in calibration.KINDS:
        raise InputError(f"--valid {valid} is for --calibrate; name how to calibrate, or leave it out.")
    if is_elsewhere(directory):
        _check_of_url(directory, out, calibrate)
    directory = copied(directory)
    run = RunDirectory(directory)
    config = run.read_config()
    out = run.predictions_file if out is None else Path(out) if is_elsewhere(out) else local(out)
    own_labels = data is None and labels is None
    if data is None:
        data, labels = config.data.test, labels or config.data.test_labels
    if data is None:
        raise InputError("The run's config names no test file; say what to score with --data.")
    if is_elsewhere(out) and any(f"{shown(out)}/".startswith(f"{shown(p)}/") for p in (data, labels, item_info) if p):
        raise InputError(f"Output {shown(out)} would overwrite what is to be read; name another file.")
    data, labels = local(data), labels and local(labels)
    if own_labels and not Path(data).exists():
        raise InputError(f"The run's test file {data} does not exist any more; say what to score with --data.")
    if Path(data).is_dir() and (Path(data) / "test.parquet").is_file():
        data = Path(data) / "test.parquet"  # a whole data set was given
    files = part_files(data)
    if own_labels and labels and not Path(labels).exists():
        log.warning(f"No metrics: {labels}, the config's data.test_labels, does not exist.")
        labels = None
    if calibrate in calibration.KINDS:
        valid = _validation_file(config, valid, Path(data))
    read = [data, labels, item_info, valid]
    inputs = [file for path in read if path for file in part_files(path)]
    check_output(out, task, inputs + _prepared(config, files[0].parent))
    columns = [name for name in config.features.id_columns if name in column_names(files)]
    ids = {name: read_whole(files, name) for name in columns}
    numbering = numbering_of(data)
    trained = run.read_metadata().get("numbering")
    check_same_numbering(numbering, data, trained, directory)
    if labels:
        check_same_numbering(numbering_of(labels) or numbering, labels, numbering, data)
    if item_info is not None:
        check_same_numbering(numbering_of(item_info), item_info, numbering, data)
    if item_info is None and _count(numbering, config) > _count(trained, config):
        raise InputError(
            f"{data} was prepared with items that are new since training; name its item table with --item-info "
            f"({Path(data).parent / 'item_info.parquet'}), and they are scored by their features."
        )
    if original_ids:
        ids |= {name: original(name, ids[name], files[0], numbering) for name in _named(config) if name in ids}
    id_columns = config.features.id_columns
    known = read_labels(files, config.features.label, labels, id_columns)
    other_labels = config.features.other_labels
    label_columns = column_names(part_files(labels) if labels else files)
    known_others = {
        name: read_labels(files, name, labels, id_columns) if name in label_columns and known is not None else None
        for name in other_labels
    }
    users = _read_users(files, config) if known is not None else None

    predictor = Predictor.load(directory, item_info)
    calibrated = None if calibrate == "none" else _calibration(directory, predictor, calibrate, valid)
    log.info(f"Scoring {data} with {directory}, step {predictor.step:,}.")
    started = time.monotonic()
    every = predictor.all_logits(data)
    logits, more = metrics.first(every), every[..., 1:]
    seconds = time.monotonic() - started
    _check_finite(every.reshape(len(every), -1).sum(axis=1), directory, predictor)
    for name, values in ids.items():
        assert len(values) == len(logits), (name, len(values), len(logits))
    final = logits.astype(np.float64) if calibrated is None else calibrated.apply(logits)
    others = {f"score_{name}": expit(more[:, i].astype(np.float64)) for i, name in enumerate(other_labels)}
    write_scores(out, ids, expit(final), task, others)
    result = {"rows": len(logits), "seconds": seconds, "out": shown(out), "metrics": {}}
    if known is not None:
        result["metrics"] = metrics.evaluate(known, final, users)
        for i, name in enumerate(other_labels):
            if known_others[name] is not None:
                result["metrics"] |= metrics.evaluate_others({name: known_others[name]}, more[:, i : i + 1])
        if calibrated is not None:
            result["uncalibrated"] = metrics.evaluate(known, logits, users)
    return result


def _check_of_url(directory: str | Path, out: str | Path | None, calibrate: str | None) -> None:
    """Raises: InputError where something would be written beside a run that is at a URL."""
    if out is None:
        raise InputError(f"The run is at {shown(directory)}; say where the scores go with --out.")
    if calibrate in calibration.KINDS:
        raise InputError(
            f"--calibrate keeps what it fits in the run directory, and {shown(directory)} is a URL; copy the run here, "
            "and calibrate and score it here."
        )


def _count(numbering: Numbering | None, config: Config) -> int:
    """How many items were numbered; 0 where nothing says."""
    return ((numbering or {}).get(config.features.item) or [[0]])[-1][0]


def _prepared(config: Config, folder: Path) -> list[Path]:
    """Files that are there but once, of what was trained on and of the folder of what is scored."""
    data = config.data
    named = [path for path in (data.train, data.valid, data.test_labels, data.item_info) if path]
    own = [Path(path) for path in named if not is_elsewhere(path)]
    parts = [file for path in own if path.is_dir() for file in path.glob("*.parquet")]
    beside = [folder / f"{name}.parquet" for name in ("train", "valid", "test_labels", "item_info", "item_feature")]
    return own + parts + beside + [*folder.glob("vocabularies/*.parquet")]


def _named(config: Config) -> tuple[str, str]:
    """The columns of ids that a vocabulary may give back."""
    return config.features.user, config.features.item


def _validation_file(config: Config, given: str | Path | None, data: Path) -> str | Path:
    """The rows to calibrate on: the file that is given, training's, or where that was moved, the one beside `data`."""
    if given or is_remote(config.data.valid) or Path(config.data.valid).exists():
        return given or config.data.valid
    beside = (data if data.is_dir() else data.parent) / Path(config.data.valid).name
    if not beside.exists():
        raise InputError(
            f"The validation file {config.data.valid} does not exist any more; name it with --valid, for --calibrate."
        )
    log.info(f"{config.data.valid} does not exist any more; calibrating on {beside}, beside the scored file.")
    return beside


def _calibration(
    directory: Path, predictor: Predictor, kind: str | None, valid: str | Path | None
) -> Calibration | None:
    """Fits one of this kind on the validation rows and keeps it; without a kind, the one that is kept."""
    if kind is None:
        kept = predictor.calibration
        if kept is not None:
            log.info(f"Scores are calibrated ({kept.kind}, {calibration.path(directory)}).")
        elif calibration.path(directory).exists():
            log.warning(
                f"Scores are not calibrated: {calibration.path(directory)} is of another step than the model's, "
                f"{predictor.step:,}; fit it anew with --calibrate."
            )
        return kept
    config, recorded = predictor.config, RunDirectory(directory).read_metadata()
    check_same_numbering(numbering_of(valid), valid, recorded.get("numbering"), directory)
    split = read_labelled(valid, config.features, config.data.cache_dir)
    if split.fingerprint != recorded["data"].get("valid", split.fingerprint):
        log.warning(f"{valid} has changed since training; calibrating by it as it is now.")
    labels, logits = np.asarray(split.label), predictor.score_split(split)
    _check_finite(logits, directory, predictor)
    fitted = calibration.fit(kind, predictor.step, labels, logits)
    before, after = (metrics.logloss(labels, x) for x in (logits, calibration.cross_fitted(kind, labels, logits)))
    with writing(directory, "make it writable"):
        calibration.write(directory, fitted)
    log.info(
        f"Calibrated ({kind}) on {len(labels):,} validation rows, kept in {calibration.path(directory)}: validation "
        f"logloss {show(before)} before, {show(after)} after, each row by a fit on others (5 folds)."
    )
    return fitted


def _check_finite(logits: np.ndarray, directory: Path, predictor: Predictor) -> None:
    broken = np.flatnonzero(~np.isfinite(logits))
    if broken.size:
        raise InputError(
            f"{directory}: the model at step {predictor.step:,} gives row {broken[0]} a score that is not finite "
            f"({broken.size:,} rows in all); train it anew."
        )


def _read_users(files: list[Path], config: Config) -> np.ndarray | None:
    """Group keys for grouped AUC, if the file has usable ones."""
    try:
        return read_keys(files, config.features.user)
    except InputError as error:
        log.warning(f"No grouped AUC: {error}")
        return None
