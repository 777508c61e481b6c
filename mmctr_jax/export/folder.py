"""The exported folder: graphs, item arrays, and serving.json, which says what they are; checked before it is there.

    serving.json        what the export is of          model-8.onnx      for histories of at most 8 clicks
    item_vectors.bin    (V, D) float32, by item id     model-8.weights   its weights
    item_ids.json       original ids, if asked for
As StableHLO: model-8.stablehlo (of `jax.export`, for CPU and CUDA) and model-8.npz, its weights in the order of its
first arguments.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
from scipy.special import expit

from mmctr_jax.config import Config
from mmctr_jax.console import log, show
from mmctr_jax.data.cache import Split, read_labelled
from mmctr_jax.data.items import fingerprint
from mmctr_jax.data.lengths import scoring_lengths
from mmctr_jax.data.numbering import check_same_numbering, grown, numbering_of
from mmctr_jax.devices.flags import plain_jax
from mmctr_jax.devices.sharding import make_mesh, put_items
from mmctr_jax.errors import InputError
from mmctr_jax.export.request import CLICKS, SIDE, input_shapes, item_arrays, request_function
from mmctr_jax.files import sha256, writing
from mmctr_jax.prediction import calibration
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied
from mmctr_jax.serve.scorer import FORMAT, MANIFEST, Scorer
from mmctr_jax.training import metrics
from mmctr_jax.training.step import make_narrow

TOLERANCE = 1e-4  # of float32 logits
_CHECKED_ROWS = 5_000
_ROWS, _CLICKS = 1024, 8_192  # candidates at a time, and clicks: bounds what a request needs in memory


@plain_jax()
def export(
    directory: Path,
    out: Path,
    kind: str = "onnx",
    precision: str = "float32",
    item_info: str | Path | None = None,
    original_ids: bool = False,
    triton: str | None = None,
) -> dict[str, Any]:
    """Writes the model of a run directory to `out`, which becomes the export once it has passed the self-check.

    Args:
        directory: What `mmctr train` wrote.
        out: New, or an export, which is replaced whole.
        kind: onnx | stablehlo.
        precision: float32 | int8.
        item_info: As in `Predictor.load`. Where `out` is an export of the same model, its graphs are kept.
        original_ids: Requests name items as the log did, not by number.
        triton: Makes it a Triton model repository, the names of whose models begin so.

    Returns:
        The manifest, which is serving.json.

    Raises:
        InputError: The run cannot be exported so, or the self-check failed.
    """
    if kind == "stablehlo" and precision != "float32":
        raise InputError(f"--precision {precision} is of --format onnx; StableHLO is exported in float32.")
    if triton and not re.fullmatch(r"[\w.-]+", triton):
        raise InputError(f"--triton {triton!r}: a model's name is of letters, digits, '-', '_' and '.'.")
    if triton and (kind != "onnx" or original_ids):
        raise InputError("--triton is of --format onnx, and its models take item numbers: leave out --original-ids.")
    before, directory, names = _check_out(out), copied(directory), None
    predictor = Predictor.load(directory, item_info, "float32")
    if original_ids:
        prepared = item_info or predictor.config.data.item_info
        if Path(prepared).exists():
            known = RunDirectory(directory).read_metadata().get("numbering")
            check_same_numbering(numbering_of(prepared), prepared, known, directory)
        names = _original_ids(predictor, Path(prepared))
    fitted = predictor.calibration
    with _replacing_folder(out) as folder:
        manifest = write(folder, predictor, kind, precision, fitted, names, out if before else None)
        checked = _self_check(folder, predictor, kind, precision)
        _write_manifest(folder, manifest | {"self_check": checked, "triton": triton})
        if triton:
            from mmctr_jax.export.triton import arrange

            arrange(folder, triton)
    return manifest | {"self_check": checked}


def write(
    folder: Path,
    predictor: Predictor,
    kind: str,
    precision: str,
    fitted: calibration.Calibration | None = None,
    names: list[str | None] | None = None,
    before: Path | None = None,
) -> dict[str, Any]:
    """Writes an export that is not checked yet; its manifest.

    names: by item number, what requests name items by; None: their numbers.
    before: an export whose graphs are kept if they are of the same model.
    """
    config = predictor.config
    arrays = item_arrays(config, predictor.params, predictor.table, predictor.num_items)
    one_graph = config.model.shares_history and config.model.narrowed(1) == config.model
    lengths = (config.model.max_history,) if one_graph else scoring_lengths(config.model, config.train)
    model = {
        "format": FORMAT,
        "kind": kind,
        "precision": precision,
        "model": config.model.name,
        "step": predictor.step,
        "weights": _digest(predictor.params, predictor.batch_stats),
        "max_history": config.model.max_history,
        "rows_at_once": {str(n): _ROWS if one_graph else min(_ROWS, max(_CLICKS // n, 1)) for n in lengths},
        "side": [f.request() for f in config.features.side],
        "clicks": [f.request() for f in config.features.clicks],
        "labels": list(config.features.other_labels),
        "calibration": None if fitted is None else json.loads(json.dumps(asdict(fitted))),
        "versions": {name: importlib.metadata.version(name) for name in _packages(kind)},
    }
    manifest = model | {
        "num_items": predictor.num_items,
        "trained_items": config.features.num_items,
        "arrays": {name: {"file": f"{name}.bin", "shape": list(array.shape)} for name, array in arrays.items()},
        "items": fingerprint(arrays),
        "original_ids": names is not None,
    }
    for name, array in arrays.items():
        array.tofile(folder / f"{name}.bin")
    if names is not None:
        (folder / "item_ids.json").write_text(json.dumps(names))
    old = json.loads((before / MANIFEST).read_text()) if before else {}
    same = before and not old.get("triton") and all(old.get(key) == value for key, value in model.items())
    if same and _digests(before) == old.get("graphs"):
        log.info(f"{before} is of the same model: its graphs are kept.")
        _keep_graphs(before, folder, arrays)
    else:
        _write_graphs(folder, predictor, lengths, arrays, kind, precision, fitted)
    manifest["graphs"] = _digests(folder)
    _write_manifest(folder, manifest)
    return manifest


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of the graphs."""
    return {path.name: sha256(path).hexdigest() for path in sorted(folder.glob("model-*"))}


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _packages(kind: str) -> tuple[str, ...]:
    return ("mmctr-jax", "jax", "onnx", "onnxruntime") if kind == "onnx" else ("mmctr-jax", "jax", "jaxlib")


def _digest(*trees: Any) -> str:
    """SHA-256 of arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    return fingerprint({jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})


def _check_out(out: Path) -> bool:
    """Whether an export is there already. Raises: InputError where something else is."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        json.loads((out / MANIFEST).read_text())
        return True
    except (OSError, ValueError):
        raise InputError(f"{out} exists and is not an export (it has no {MANIFEST}); name another --out.") from None


@contextmanager
def _replacing_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, which takes its place when the block ends well."""
    out = out.resolve()  # of a link, what it leads to
    with writing(out, "name another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
        try:
            yield folder
            folder.chmod(0o755)
            old = folder.with_name(f"{folder.name}.old")
            if out.exists():
                out.rename(old)
            folder.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _original_ids(predictor: Predictor, item_info: Path) -> list[str | None]:
    """By item number: what the log called it, by the vocabulary beside `item_info`.

    Raises: InputError where the prepared folder does not say, or that of another preparation.
    """
    name = predictor.config.features.item
    path = item_info.parent / "vocabularies" / f"{name}.parquet"
    try:
        vocabulary = pl.read_parquet(path).sort("id")
        names = vocabulary["value"].to_list()
        whole = vocabulary["id"].to_list() == list(range(1, len(names) + 1))
    except (OSError, pl.exceptions.PolarsError):
        raise InputError(
            f"--original-ids needs the vocabulary of the prepared data, and {path} cannot be read; export without it."
        ) from None
    known = (numbering_of(item_info) or {}).get(name) if item_info.exists() else None
    if not whole or (known is not None and grown(names)[-1] != known[-1]):
        raise InputError(f"--original-ids: {path} is not the vocabulary that {item_info} was numbered with.")
    if len(names) < predictor.num_items - 1:
        raise InputError(
            f"--original-ids: {path} names {len(names):,} items of {predictor.num_items - 1:,}; export without it."
        )
    return [None, *names[: predictor.num_items - 1]]


def _keep_graphs(out: Path, folder: Path, arrays: dict[str, np.ndarray]) -> None:
    for path in out.glob("model-*"):
        if path.suffix == ".onnx":
            from mmctr_jax.export.onnx_files import resize

            resize(path, {name: array.shape for name, array in arrays.items()}, folder / path.name)
        else:
            os.link(path, folder / path.name)


def _write_graphs(
    folder: Path,
    predictor: Predictor,
    lengths: tuple[int, ...],
    arrays: dict[str, np.ndarray],
    kind: str,
    precision: str,
    fitted: calibration.Calibration | None,
) -> None:
    config, mesh = predictor.config, make_mesh(jax.devices()[:1])
    narrow = make_narrow(config, mesh)
    items = put_items(predictor.table, mesh, config)
    params, batch_stats = jax.tree.map(np.asarray, (predictor.params, predictor.batch_stats))
    for length in lengths:
        enough = jax.tree.map(np.asarray, narrow(params, items, length))
        shapes = input_shapes(config, arrays, length)
        if kind == "stablehlo":
            _write_stablehlo(folder / f"model-{length}.stablehlo", config, enough, batch_stats, length, shapes, fitted)
            continue
        with _needs_onnx():
            from mmctr_jax.export.graph import convert
            from mmctr_jax.export.int8 import quantised
            from mmctr_jax.export.onnx_files import save

        graph = convert(request_function(config, enough, batch_stats, length, fitted), shapes)
        if precision == "int8":
            exact, graph = graph, quantised(graph)
            if graph is exact:
                log.warning("No matrix of this model is large enough for integers: int8 is as float32.")
        save(graph, {name: array.shape for name, array in arrays.items()}, folder / f"model-{length}.onnx")
        log.info(f"Wrote the graph for histories of at most {length} clicks.")


@contextmanager
def _needs_onnx() -> Iterator[None]:
    try:
        yield
    except ImportError:
        raise InputError(
            "Export as ONNX needs the packages onnx and onnxruntime; install them with: pip install 'mmctr-jax[serve]'"
        ) from None


def _write_stablehlo(path, config, params, batch_stats, length, shapes, fitted) -> None:
    """`call(weights, request)`: a list of arrays, and a dictionary of arrays → a dictionary of arrays."""
    leaves, tree = jax.tree.flatten((params, batch_stats))

    def call(weights, request):
        return request_function(config, *jax.tree.unflatten(tree, weights), length, fitted)(request)

    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    exported = jax.export.export(jax.jit(call), platforms=["cpu", "cuda"])(weights, shapes)
    path.write_bytes(exported.serialize())
    np.savez(path.with_suffix(".npz"), *leaves)


def _self_check(folder: Path, predictor: Predictor, kind: str, precision: str) -> dict[str, Any]:
    """Validation rows through the export, one candidate at a time, against the run's own scores."""
    split, labels = _rows_to_check(predictor)
    expected = predictor.score_split(split)
    got = _logits_of(folder, predictor, kind, split)
    largest = float(np.abs(got - expected).max())
    aucs = (None, None) if labels is None else tuple(float(metrics.auc(labels, x)) for x in (expected, got))
    moved = float(np.abs(expit(got) - expit(expected)).max())
    result = {"rows": split.rows, "logit": largest, "score": moved, "auc": aucs[0], "exported_auc": aucs[1]}
    if not np.isfinite(largest):
        raise InputError("The self-check failed: a logit of the export is not finite; nothing was exported.")
    if precision == "float32" and not largest <= TOLERANCE:
        raise InputError(
            f"The self-check failed: of {split.rows:,} rows, one has a logit that is {largest:.1e} off, and "
            f"{TOLERANCE:.0e} is allowed; nothing was exported."
        )
    log.info(
        f"Self-check on {split.rows:,} rows: logits differ by at most {largest:.1e}, scores by {moved:.1e}; "
        f"AUC {show(aucs[1])}, by mmctr predict {show(aucs[0])}."
    )
    return result


def _rows_to_check(predictor: Predictor) -> tuple[Split, np.ndarray | None]:
    """Validation rows and their labels; made-up rows where the file has been moved."""
    config = predictor.config
    if not Path(config.data.valid).exists():
        log.warning(f"{config.data.valid} does not exist; the self-check is on made-up rows.")
        return _made_up(config, predictor.num_items), None
    split = read_labelled(config.data.valid, config.features, config.data.cache_dir)
    rows = np.unique(np.linspace(0, split.rows - 1, min(split.rows, _CHECKED_ROWS)).astype(int))
    starts, ends = split.history_offsets[rows], split.history_offsets[rows + 1]
    clicks = [split.history_values[start:end] for start, end in zip(starts, ends, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(ends - starts)])
    side = {name: np.asarray(values[rows]) for name, values in split.side.items()}
    of_clicks = {
        name: np.concatenate([values[start:end] for start, end in zip(starts, ends, strict=True)])
        for name, values in split.clicks.items()
    }
    labels = np.asarray(split.label)[rows]
    return Split(np.concatenate(clicks), offsets, split.item[rows], side, None, "", clicks=of_clicks), labels


def _made_up(config: Config, num_items: int, rows: int = 500) -> Split:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, config.model.max_history + 2, rows))])
    side = {f.name: f.made_up(rows, rng) for f in config.features.side}
    clicks = {f.name: f.made_up(int(offsets[-1]), rng) for f in config.features.clicks}
    history, item = (rng.integers(1, num_items, n).astype(np.int32) for n in (offsets[-1], rows))
    return Split(history, offsets, item, side, None, "", clicks=clicks)


def _logits_of(folder: Path, predictor: Predictor, kind: str, split: Split) -> np.ndarray:
    logits = Scorer(folder, by_number=True).logits if kind == "onnx" else _stablehlo_logits(folder, predictor)
    got = np.empty(split.rows, np.float32)
    for row in range(split.rows):
        history = split.history_values[split.history_offsets[row] : split.history_offsets[row + 1]]
        side = {name: values[row : row + 1] for name, values in split.side.items()}
        part = slice(split.history_offsets[row], split.history_offsets[row + 1])
        clicks = {name: values[part] for name, values in split.clicks.items()}
        got[row] = logits(np.asarray(history), np.asarray(split.item[row : row + 1]), side, clicks)[0]
    return got


def _stablehlo_logits(folder: Path, predictor: Predictor) -> Callable:
    """As a service in JAX would have it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    lengths = [int(length) for length in manifest["rows_at_once"]]
    models = {length: jax.export.deserialize((folder / f"model-{length}.stablehlo").read_bytes()) for length in lengths}
    calls = {length: jax.jit(model.call) for length, model in models.items()}
    weights = {}
    for length in lengths:
        with np.load(folder / f"model-{length}.npz", allow_pickle=False) as file:
            weights[length] = [file[name] for name in file.files]
    arrays = {
        name: np.fromfile(folder / entry["file"], np.float32).reshape(entry["shape"])
        for name, entry in manifest["arrays"].items()
    }

    def logits(
        history: np.ndarray,
        candidates: np.ndarray,
        side: dict[str, np.ndarray],
        of_clicks: dict[str, np.ndarray],
    ) -> np.ndarray:
        most = manifest["max_history"]
        clicks = history[-most:]
        length = next(length for length in lengths if len(clicks) <= length)
        request = {"history": np.pad(clicks, (length - len(clicks), 0)), "candidates": candidates}
        request |= {f"{SIDE}{name}": values for name, values in side.items()}
        for name, values in of_clicks.items():
            request[f"{CLICKS}{name}"] = np.pad(values[-most:], (length - len(clicks), 0))
        return np.asarray(calls[length](weights[length], arrays | request)["logits"])

    return logits
