"""Scoring a file with a trained model, from the run directory alone."""

from __future__ import annotations

import csv
import io
import os
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from jax.sharding import Mesh

from mmctr_jax.config.schema import Config
from mmctr_jax.console import Progress, log, show
from mmctr_jax.data.cache import Split, load_split
from mmctr_jax.data.items import with_new_items
from mmctr_jax.data.labels import read_labels
from mmctr_jax.data.parquet import column_names, part_files, read_keys, read_whole
from mmctr_jax.devices.sharding import make_mesh, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.files import replacing, writing
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.calibration import Calibration
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.training import metrics
from mmctr_jax.training.scoring import make_score
from mmctr_jax.training.step import abstract_state

TASKS = ("Task1", "Task2", "Task1&2")
_SUFFIXES = (".parquet", ".csv", ".zip")


def restore_best(directory: Path, config: Config, items: Any, mesh: Mesh) -> tuple[int, Any, Any]:
    """Step, parameters and running means of a run's best validation AUC. Raises InputError."""
    with RunDirectory(directory).checkpoints() as checkpoints:
        if not checkpoints.steps:
            raise InputError(f"{directory} has no checkpoint yet; let the training reach its first one.")
        return checkpoints.restore_best(abstract_state(config, items, mesh))


@dataclass
class Predictor:
    """A trained model on this host's devices."""

    config: Config
    step: int
    num_items: int  # that it can score, those beyond `config.features.num_items` by their features alone
    _score: Callable[[Split, Callable[[int], None]], np.ndarray]

    @classmethod
    def load(cls, directory: Path, item_info: str | Path | None = None) -> Predictor:
        """The checkpoint of the best validation AUC in a run directory.

        item_info: a newer one than training's; what it has beyond that can be scored, too.
        Raises: InputError.
        """
        run = RunDirectory(directory)
        config = run.read_config()
        mesh, table, num_items = make_mesh(), run.read_items(), config.features.num_items
        if item_info is not None:
            table, num_items, remarks = with_new_items(config, table, run.read_centroids(), item_info)
            for remark in remarks:
                log.warning(remark)
        items = put_items(table, mesh, config)
        step, params, batch_stats = restore_best(directory, config, items, mesh)
        score = make_score(config, mesh)

        def score_split(split: Split, on_rows: Callable[[int], None]) -> np.ndarray:
            return score(params, batch_stats, split, items, on_rows)

        return cls(config, step, num_items, score_split)

    def logits(self, path: str | Path) -> np.ndarray:
        """(rows,) float32 logits of a Parquet file's or folder's rows, in their order. Raises InputError."""
        features = self.config.features.model_copy(update={"num_items": self.num_items})
        split = load_split(path, features, cache_dir=None, with_labels=False)
        if self.num_items > self.config.features.num_items:
            self._tell_of_new_items(split)
        return self.score(split)

    def score(self, split: Split) -> np.ndarray:
        """(rows,) float32 logits of rows that are read already."""
        with Progress("Scoring", split.rows, "samples") as bar:
            return self._score(split, bar.advance)

    def _tell_of_new_items(self, split: Split) -> None:
        trained = self.config.features.num_items
        target = split.item >= trained
        before = np.concatenate([[0], np.cumsum(split.history_values >= trained)])
        starts, ends = split.history_offsets[:-1], split.history_offsets[1:]
        clicked = before[ends] > before[np.maximum(starts, ends - self.config.model.max_history)]
        log.info(
            f"{self.num_items - trained:,} items are new since training. Of {split.rows:,} rows, {target.sum():,} have "
            f"one as the target and {(clicked & ~target).sum():,} more in the history: such items are scored without "
            "an id embedding, by their features alone."
        )


def predict(
    directory: Path,
    data: str | Path | None,
    out: Path | None,
    task: str | None = None,
    labels: str | Path | None = None,
    item_info: str | Path | None = None,
    calibrate: str | None = None,
) -> dict[str, Any]:
    """Scores `data` (default: the config's test file) into `out` (default: predictions.parquet in the run directory).

    labels: a file of labels in the same row order (default: the config's, for its own test file); without it, labels
    are taken from `data` if it has them. item_info: as in `Predictor.load`. calibrate: a kind of `calibration.KINDS`,
    to be fitted and kept in the run directory; "none": scores as the model gives them; null: calibrated if that was
    fitted before.
    Returns rows, seconds, where it was written, and metrics where labels are known (`uncalibrated`, too, where scores
    are calibrated). Raises InputError.
    """
    run = RunDirectory(directory)
    config = run.read_config()
    out = out or run.predictions_file
    own_labels = data is None and labels is None
    if data is None:
        data, labels = config.data.test, labels or config.data.test_labels
    if data is None:
        raise InputError("The run's config names no test file; say what to score with --data.")
    if Path(data).is_dir() and (Path(data) / "test.parquet").is_file():
        data = Path(data) / "test.parquet"  # a whole data set was given
    files = part_files(data)
    if own_labels and labels and not Path(labels).exists():
        log.warning(f"No metrics: {labels}, the config's data.test_labels, does not exist.")
        labels = None
    read = [data, labels, item_info, config.data.valid if calibrate in calibration.KINDS else None]
    _check_output(out, task, inputs=[file for path in read if path for file in part_files(path)])
    columns = [name for name in config.features.id_columns if name in column_names(files)]
    ids = {name: read_whole(files, name) for name in columns}
    known = read_labels(files, config.features.label, labels)
    users = _read_users(files, config) if known is not None else None

    predictor = Predictor.load(directory, item_info)
    calibrated = None if calibrate == "none" else _calibration(directory, predictor, calibrate)
    log.info(f"Scoring {data} with {directory}, step {predictor.step:,}.")
    started = time.monotonic()
    logits = predictor.logits(data)
    seconds = time.monotonic() - started
    _check_finite(logits, directory, predictor)
    for name, values in ids.items():
        assert len(values) == len(logits), (name, len(values), len(logits))
    final = logits.astype(np.float64) if calibrated is None else calibrated.apply(logits)
    _write(out, ids, 1 / (1 + np.exp(-final)), task)
    result = {"rows": len(logits), "seconds": seconds, "out": str(out), "metrics": {}}
    if known is not None:
        result["metrics"] = metrics.evaluate(known, final, users)
        if calibrated is not None:
            result["uncalibrated"] = metrics.evaluate(known, logits, users)
    return result


def _calibration(directory: Path, predictor: Predictor, kind: str | None) -> Calibration | None:
    """Fits one of this kind on the validation rows and keeps it; without a kind, the one that is kept."""
    if kind is None:
        kept = calibration.read(directory, predictor.step)
        if kept is not None:
            log.info(f"Scores are calibrated ({kept.kind}, {calibration.path(directory)}).")
        elif calibration.path(directory).exists():
            log.warning(
                f"Scores are not calibrated: {calibration.path(directory)} is of another step than the model's, "
                f"{predictor.step:,}; fit it anew with --calibrate."
            )
        return kept
    valid, config = predictor.config.data.valid, predictor.config
    split = load_split(valid, config.features, config.data.cache_dir, with_labels=True)
    if split.fingerprint != RunDirectory(directory).read_metadata()["data"].get("valid", split.fingerprint):
        log.warning(f"{valid} has changed since training; calibrating by it as it is now.")
    labels, logits = np.asarray(split.label), predictor.score(split)
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


def _check_output(out: Path, task: str | None, inputs: list[Path]) -> None:
    if out.suffix not in _SUFFIXES:
        raise InputError(f"Output {out} must end in {', '.join(_SUFFIXES)}; the ending chooses the format.")
    if (out.suffix == ".zip") != (task is not None):
        raise InputError(
            f"--task ({', '.join(TASKS)}) names the score column of a .zip file; give it with --out NAME.zip only."
        )
    if not out.parent.is_dir():
        raise InputError(f"Folder {out.parent} for the output does not exist; make it first.")
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"Output {out} cannot be written; name another file.")
    if out.resolve() in [file.resolve() for file in inputs]:
        raise InputError(f"Output {out} would overwrite what is to be read; name another file.")


def _read_users(files: list[Path], config: Config) -> np.ndarray | None:
    """Group keys for grouped AUC, if the file has usable ones."""
    if config.features.user not in column_names(files):
        return None
    try:
        return read_keys(files, config.features.user)
    except InputError as error:
        log.warning(f"No grouped AUC: {error}")
        return None


def _write_csv(table: pa.Table, stream: BinaryIO) -> None:
    """CSV whose header is bare where it can be, as the challenge's is (pyarrow would put it in quotes)."""
    header = io.StringIO()
    csv.writer(header, lineterminator="\n").writerow(table.column_names)
    stream.write(header.getvalue().encode())
    pyarrow.csv.write_csv(table, stream, pyarrow.csv.WriteOptions(include_header=False))


def _write(out: Path, ids: dict[str, pa.ChunkedArray], scores: np.ndarray, task: str | None) -> None:
    try:
        with replacing(out) as temporary:
            if out.suffix == ".zip":
                row_ids = ids.get("ID", pa.chunked_array([np.arange(len(scores))]))
                buffer = io.BytesIO()
                _write_csv(pa.table({"ID": row_ids, task: scores}), buffer)
                with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                    archive.writestr(zipfile.ZipInfo("prediction.csv"), buffer.getvalue(), zipfile.ZIP_DEFLATED)
            else:
                table = pa.table({**ids, "score": scores})
                if out.suffix == ".csv":
                    with open(temporary, "wb") as stream:
                        _write_csv(table, stream)
                else:
                    pq.write_table(table, temporary)
    except OSError as error:
        raise InputError(f"Output {out} cannot be written: {error.strerror}.") from None
    except pa.ArrowException as error:
        raise InputError(f"Output {out}: {str(error).splitlines()[0]}; choose .parquet.") from None
