"""A training that begins with another run's weights: rows of known ids keep theirs, rows of new ids begin fresh."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mmctr_jax.console import log
from mmctr_jax.data.numbering import Numbering, check_same_numbering
from mmctr_jax.devices.sharding import put_items
from mmctr_jax.errors import InputError
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.state import TrainState
from mmctr_jax.training.step import abstract_state

Arrays = dict[str, jax.Array]


def check_continues(run: RunDirectory, numbering: Numbering | None, data: str) -> None:
    """Raises: InputError if `run` is no run, or its ids mean other things than those of `data`."""
    run.read_config()
    check_same_numbering(numbering, data, run.read_metadata().get("numbering"), run)


def warm_started(fresh: TrainState, run: RunDirectory, mesh: Mesh) -> TrainState:
    """The fresh state with the weights, moments and running means of the best checkpoint of `run`.

    Steps count from 0 again. Moments begin anew, with a warning, where the optimiser is another one.
    Raises: InputError if a weight has another shape there, apart from more rows in a table.
    """
    config = run.read_config()
    like = abstract_state(config, put_items(run.read_items(), mesh, config), mesh)
    with run.checkpoints() as checkpoints:
        if not checkpoints.steps:
            raise InputError(f"--init-from {run} has no checkpoint yet; let it reach its first one.")
        step = checkpoints.best_step or checkpoints.last_step
        old, _ = checkpoints.restore(step, like)
    known = config.features.table_sizes
    averaged = fresh.averaged
    if averaged is not None:
        averaged = _merged(averaged, old.predicting_params, known, run)
    params = _merged(fresh.params, old.params if fresh.averaged is not None else old.predicting_params, known, run)
    try:
        moments = _merged(fresh.opt_state, old.opt_state, known, run)
    except InputError:
        moments = fresh.opt_state
        log.warning(f"{run} was trained with another optimiser: what this one keeps of gradients begins anew.")
    log.info(f"Beginning with the weights of {run}, step {step:,}.")
    means = _merged(fresh.batch_stats, old.batch_stats, known, run)
    return fresh.replace(params=params, batch_stats=means, opt_state=moments, averaged=averaged)


def _merged(fresh: Any, old: Any, known: dict[str, int], run: RunDirectory) -> Any:
    """The old tree; its tables with the fresh one's rows beyond those of known ids."""
    ours, structure = jax.tree_util.tree_flatten_with_path(fresh)
    theirs = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(old)}
    merged = []
    for path, x in ours:
        name = jax.tree_util.keystr(path)
        there = theirs.pop(name, None)
        table = _table(path)
        rows = known.get(table) if table else None
        same = there is not None and (there.shape == x.shape or (rows and there.shape[1:] == x.shape[1:]))
        if not same or (rows and rows > len(x)):
            shape = "nothing" if there is None else str(there.shape)
            raise InputError(
                f"--init-from {run}: its model is another one ({name}: {shape} there, {x.shape} here); "
                "use the settings of its config.yaml, and data prepared with --like it."
            )
        merged.append(_rows(there, x, rows) if rows else jax.device_put(there, x.sharding))
    if theirs:
        raise InputError(f"--init-from {run}: its model is another one (it has {next(iter(theirs))}, too).")
    return jax.tree_util.tree_unflatten(structure, merged)


def _table(path: Any) -> str | None:
    """The name of the embedding table that a leaf is, or is a moment of."""
    keys = [getattr(key, "key", None) for key in path]
    return keys[keys.index("embedding") + 1] if "embedding" in keys[:-1] else None


def _rows(old: jax.Array, fresh: jax.Array, known: int) -> jax.Array:
    """The old array's first `known` rows, and the fresh one's after these."""

    def both(old: jax.Array, fresh: jax.Array) -> jax.Array:
        return jnp.concatenate([old[:known], fresh[known:]])

    return jax.jit(both, out_shardings=fresh.sharding)(old, fresh)
