"""Trainings of several systems, killed at random moments and resumed, against undisturbed ones: `make soak`.

Prints a table. The data is made up: 20,000 training rows in 20 files, so that building the cache takes long enough to
be hit, and as many rows to validate on.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from kills import PHASES, Outcome, soak
from synthetic import CODES, DIM, SYSTEMS, merged, raw_config, samples, write_dataset

pytestmark = pytest.mark.soak

_DROPOUT = {"transformer": {"dropout": 0.1}, "dcn": {"deep_dropout": 0.1}}
_CODED = [{"kind": "tags", "name": "item_tags"}, {"kind": "embedding", "name": "item_emb_d8", "dim": DIM}, CODES]
SYSTEMS_KILLED: dict[str, tuple[dict[str, Any], int]] = {
    "full model, three lengths": ({"model": _DROPOUT, "train": {"length_buckets": [2, 5]}}, 1),
    "DIN, dice (batch norm)": (SYSTEMS["din_dice"], 1),
    "semantic codes, target attention, bfloat16": (
        merged(
            {"model": _DROPOUT},
            {
                "features": {"item_features": _CODED},
                "model": {"transformer": {"target_attention": 1}},
                "train": {"precision": "bfloat16", "length_buckets": [5]},
            },
        ),
        1,
    ),
    "similarity, two lengths, 4 devices": (
        merged(SYSTEMS["similarity"], {"model": _DROPOUT, "train": {"length_buckets": [5]}}),
        4,
    ),
}
"""Changes to the tiny config, and simulated devices."""

# In the order in which a run gets to them: what is built once is built anew after a kill.
_AIMS = (
    *("cache build", "imports", "compilation", 45, "setup", None, 90, "checkpoint write"),
    *("evaluation", None, 120, "checkpoint write", "steps", None),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    print(f"\n| system | kills | {' | '.join(PHASES)} | resumed from a checkpoint | runs ", end="")
    print("| bytes of the checkpoints that differ | other differences | minutes |")
    print(f"|---|{'---|' * (len(PHASES) + 6)}", flush=True)
    return _write_data(tmp_path_factory.mktemp("soak") / "data")


@pytest.mark.parametrize("name", SYSTEMS_KILLED)
def test_killed_anywhere_and_resumed_every_system_ends_as_if_left_alone(name, data, tmp_path):
    change, devices = SYSTEMS_KILLED[name]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(_config(data, change)))
    seed = list(SYSTEMS_KILLED).index(name)
    outcome = soak(config, tmp_path, _AIMS, seed=seed, devices=devices, own_programs=True)
    print(_row(name, outcome), flush=True)
    assert outcome.same, outcome.others


def _write_data(folder: Path) -> Path:
    write_dataset(folder)
    rng = np.random.default_rng(1)
    (folder / "train").mkdir()
    for i in range(20):
        pq.write_table(samples(rng, 1000), folder / "train" / f"{i:02}.parquet")
    pq.write_table(samples(rng, 20_000), folder / "valid.parquet")
    return folder


def _config(data: Path, change: dict[str, Any]) -> dict[str, Any]:
    training = {"batch_size": 256, "eval_batch_size": 1024, "eval_every": 40, "checkpoint_every": 15, "lr_factor": 0.5}
    raw = merged(raw_config(data), {"data": {"train": str(data / "train")}, "train": training})
    return merged(raw, change)


def _row(name: str, outcome: Outcome) -> str:
    hit = Counter(kill.phase for kill in outcome.kills)
    cells = [name, len(outcome.kills), *(hit[phase] for phase in PHASES)]
    cells += [sum(kill.step is not None for kill in outcome.kills), outcome.runs]
    cells += [f"{outcome.differing:,} of {outcome.compared:,}", len(outcome.others), f"{outcome.seconds / 60:.1f}"]
    return "| " + " | ".join(map(str, cells)) + " |"
