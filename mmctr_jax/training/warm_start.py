"""A training that begins with another run's weights: rows of known ids keep theirs, rows of new ids begin fresh."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mmctr_jax.config import Config
from mmctr_jax.console import log
from mmctr_jax.data.items import ItemTable
from mmctr_jax.data.numbering import check_same_numbering, numbering_of
from mmctr_jax.devices.sharding import put_items
from mmctr_jax.errors import InputError
from mmctr_jax.features import Feature
from mmctr_jax.features.base import Fitted
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.state import TrainState
from mmctr_jax.training.data import TrainingData
from mmctr_jax.training.step import abstract_state, parameter_shapes
from mmctr_jax.training.tables import RowTables, since_step_0


def learned_by(run: RunDirectory, config: Config) -> tuple[ItemTable, dict[str, Fitted]]:
    """Table and codebooks of the run whose weights a training begins with.

    Raises: InputError if `run` is no run, its ids mean other things, or it has other features or labels, or in another
      order.
    """
    theirs, features, item_info = run.read_config().features, config.features, config.data.item_info
    check_same_numbering(numbering_of(item_info), item_info, run.read_metadata().get("numbering"), run)
    for place in ("side", "clicks", "item_features"):
        _check_same(f"features.{place}", *(list(map(_meaning, getattr(f, place))) for f in (theirs, features)), run)
    _check_same("features.labels", list(theirs.other_labels), list(features.other_labels), run)
    _check_equal("features.item_hash", theirs.item_hash, features.item_hash, run)
    if None in (theirs.item_rows, features.item_rows):  # a number may grow
        _check_equal("features.item_rows", theirs.item_rows, features.item_rows, run)
    return run.read_items(), run.read_codebooks()


def _meaning(feature: Feature) -> dict[str, Any]:
    """What must not change of a feature; its vocabulary may grow."""
    return feature.model_dump(exclude={"vocab_size", "length", "num_items"})


def _check_same(setting: str, theirs: list, ours: list, run: RunDirectory) -> None:
    """Raises: InputError, with the first that differs."""
    for place, (there, here) in enumerate(itertools.zip_longest(theirs, ours), start=1):
        if there != here:
            if isinstance(there, dict) and isinstance(here, dict):
                keys = [key for key in there | here if there.get(key) != here.get(key)]
                there, here = ({key: f[key] for key in ("name", *keys) if key in f} for f in (there, here))
            _check_equal(f"{setting} {place}", there, here, run)


def _check_equal(what: str, there: Any, here: Any, run: RunDirectory) -> None:
    """Raises: InputError."""
    if there != here:
        there, here = ("nothing" if value is None else value for value in (there, here))
        raise InputError(
            f"--init-from {run}: {what} is {there} there and {here} here; use the settings of its config.yaml, and "
            "data prepared with --like it."
        )


def _known_rows(run: RunDirectory) -> dict[str, int]:
    """Of each embedding table the rows that the run may have learned something in."""
    features = run.read_config().features
    sizes = features.table_sizes
    if features.item_rows:
        sizes[features.item] = 1 + int(run.read_items()[features.item].max())
    return sizes


def check_continues(run: RunDirectory, data: TrainingData) -> None:
    """Checks, before anything is written, that a training on `data` can begin with the weights of `run`.

    Raises: InputError if its model is another one.
    """
    config = run.read_config()
    shapes = parameter_shapes(config, run.read_items()), parameter_shapes(data.config, data.items.table)
    _check_same_model(*map(_by_name, shapes), _known_rows(run), run)


def restored(run: RunDirectory, mesh: Mesh) -> TrainState:
    """The state of the best checkpoint of `run` that is whole, on the devices of `mesh`.

    Raises: InputError if it has none.
    """
    config = run.read_config()
    like = abstract_state(config, put_items(run.read_items(), mesh, config), mesh)
    with run.checkpoints() as checkpoints:
        if not checkpoints.steps:
            raise InputError(f"--init-from {run} has no checkpoint; let it reach its first one.")
        try:
            step, old = checkpoints.restore_best_state(like)
        except InputError as error:
            raise InputError(f"--init-from {run}: {error}") from None
    log.info(f"Beginning with the weights of {run}, step {step:,}.")
    return jax.jit(RowTables(config, mesh).caught_up)(old) if old.rows_lag else old


def warm_started(fresh: TrainState, old: TrainState, run: RunDirectory) -> TrainState:
    """The fresh state with the weights, moments and running means of `old`, which `run` had.

    Steps count from 0 again. Moments begin anew, with a warning, where the optimiser is another one.
    Raises: InputError if a weight has another shape there, apart from more rows in a table.
    """
    predicting = old.params if old.averaged is None else old.averaged
    known = _known_rows(run)
    averaged = fresh.averaged
    if averaged is not None:
        averaged = _merged(averaged, predicting, known, run)
    params = _merged(fresh.params, old.params if fresh.averaged is not None else predicting, known, run)
    try:
        moments = since_step_0(_merged(fresh.opt_state, old.opt_state, known, run))
    except InputError:
        moments = fresh.opt_state
        log.warning(f"{run} was trained with another optimiser: what this one keeps of gradients begins anew.")
    means = _merged(fresh.batch_stats, old.batch_stats, known, run)
    return fresh.replace(params=params, batch_stats=means, opt_state=moments, averaged=averaged)


def _merged(fresh: Any, old: Any, known: dict[str, int], run: RunDirectory) -> Any:
    """The old tree; its tables with the fresh one's rows beyond those of known ids."""
    ours, theirs = _by_name(fresh), _by_name(old)
    _check_same_model(theirs, ours, known, run)
    rows = [known.get(table) for table, _ in ours.values()]
    pairs = [(theirs[name][1], x) for name, (_, x) in ours.items()]

    def merged(pairs: list[tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
        return [
            jnp.concatenate([old[:n], fresh[n:]]) if n else old for n, (old, fresh) in zip(rows, pairs, strict=True)
        ]

    found = jax.jit(merged, out_shardings=[x.sharding for _, x in pairs])(pairs)  # one program, and not one for each
    return jax.tree.unflatten(jax.tree.structure(fresh), found)


def _by_name(tree: Any) -> dict[str, tuple[str | None, Any]]:
    """Each array's path → the embedding table that it is, or is a moment of, if any; and the array."""
    named = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        keys = [getattr(key, "key", None) for key in path]
        table = keys[keys.index("embedding") + 1] if "embedding" in keys[:-1] else None
        named[jax.tree_util.keystr(path)] = table, x
    return named


def _check_same_model(theirs: dict, ours: dict, known: dict[str, int], run: RunDirectory) -> None:
    """Raises: InputError unless each of our arrays is one of theirs, but for more rows in a table."""
    for name in [*ours, *theirs]:
        (table, x), (_, there) = ours.get(name, (None, None)), theirs.get(name, (None, None))
        same = x is not None and there is not None
        rows = known.get(table)
        same = same and (x.shape[1:] == there.shape[1:] and rows <= len(x) if rows else x.shape == there.shape)
        if not same:
            there, here = ("nothing" if array is None else array.shape for array in (there, x))
            raise InputError(
                f"--init-from {run}: its model is another one ({name}: {there} there, {here} here); "
                "use the settings of its config.yaml, and data prepared with --like it."
            )
