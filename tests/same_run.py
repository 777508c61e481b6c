"""Whether two runs are the same: one that was left alone, and one that was interrupted and resumed."""

import jax
import numpy as np

from mmctr_jax.devices.sharding import make_mesh
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.recorder import read_records
from mmctr_jax.training.step import abstract_state


def last_checkpoint(directory):
    """All that the newest checkpoint holds, as numpy."""
    run = RunDirectory(directory)
    like = abstract_state(run.read_config(), run.read_items(), make_mesh())
    with run.checkpoints() as checkpoints:
        state, progress = checkpoints.restore(checkpoints.last_step, like)
        return jax.tree.map(np.asarray, state), progress, progress["plateau"]["best_step"]


def assert_same_run(a, b):
    (state_a, progress_a, best_a), (state_b, progress_b, best_b) = last_checkpoint(a), last_checkpoint(b)
    for x, y in zip(jax.tree.leaves(state_a), jax.tree.leaves(state_b), strict=True):
        np.testing.assert_array_equal(x, y)
    for progress in (progress_a, progress_b):
        for measured in ("seconds", "stepping_rows", "stepping_seconds"):
            progress["position"].pop(measured)
    assert progress_a == progress_b and best_a == best_b
    records_a, records_b = (
        [{k: v for k, v in r.items() if k != "samples_per_second"} for r in read_records(d / "metrics.jsonl")]
        for d in (a, b)
    )
    assert records_a == records_b
