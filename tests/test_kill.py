"""Killed at any moment and resumed, a training ends in the same model, records and predictions."""

import pytest
import yaml
from kills import shown_phase, soak
from synthetic import QUICK, merged, raw_config, write_dataset

# All kinds of state but running means, which `make soak` has.
TINY = merged(
    QUICK,
    {
        "model": {"dcn": {"deep_dropout": 0.2}},
        "train": {"length_buckets": [4], "epochs": 3, "eval_every": 21, "checkpoint_every": 7},
    },
)
# Step 35: after a validation, with sums of losses that are in no record yet (there is one every second step).
AIMS = ("cache build", "compilation", "evaluation", 35, "checkpoint write")


@pytest.mark.slow
def test_killed_anywhere_and_resumed_it_ends_as_if_left_alone(tmp_path):
    data = write_dataset(tmp_path / "data", rows=1500)
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(merged(raw_config(data), TINY)))
    outcome = soak(config, tmp_path, AIMS, seed=0)
    assert len(outcome.kills) >= 5, outcome
    assert {"cache build", "checkpoint write", "evaluation"} <= {kill.phase for kill in outcome.kills}, outcome
    assert outcome.compared > 20_000 and outcome.same, outcome


def test_the_phase_is_read_from_what_the_terminal_shows():
    step = "Finished XLA compilation of jit(train_step) in 1.2 sec\n"
    for shown, phase in (
        ("", "imports"),
        ("Read train.parquet: 9 rows\n", "setup"),
        ("Compiling jit(init) with\n", "compilation"),
        ("Compiling jit(train_step) with\n" + step, "steps"),
        ("Compiling jit(train_step) with\n" + step + "Validating 0/9", "evaluation"),
        ("Compiling jit(train_step) with\n" + step + "Validating 9/9 Step 5: validation auc 0.5", "steps"),
    ):
        assert shown_phase(shown) == phase, shown
