"""One field at a time: every value's runs, each marked as what it is, and the test file left alone."""

import csv
import statistics

import pytest
import yaml
from synthetic import raw_config, summary_of

from mmctr_jax.errors import FailedError, InputError
from mmctr_jax.experiments import seeded_run
from mmctr_jax.experiments.sensitivity import COLLAPSED, one_at_a_time
from mmctr_jax.experiments.space import read_space

SEEDS = [1, 2, 3]
SPACE = {
    "train.learning_rate": [0.01, 0.5, 0.001],  # the base's is 0.01
    "model.dcn.deep": [[8], [16, 8]],  # the base's is the second
    "model.transformer.first_k": [0, 1],  # the base's, 3, is not among them
}


def auc(config):
    """Made up; the high rate collapses with one seed and diverges with another."""
    rate, seed = config.train.learning_rate, config.train.seed
    if rate == 0.5 and seed < 3:
        return 0.501 if seed == 1 else None
    return 0.7 + rate + 0.01 * len(config.model.dcn.deep) + 0.001 * seed + 0.003 * config.model.transformer.first_k


@pytest.fixture
def ready(dataset, tmp_path, monkeypatch):
    """(folder of base.yaml and space.yaml, the list of what was trained)."""
    done = []

    def at_once(config, directory, resume, end_early):
        done.append(directory.relative_to(tmp_path / "out").as_posix())
        if auc(config) is None:
            raise FailedError("Step 7 diverged.")
        return summary_of(validation={"auc": auc(config), "logloss": 0.5}, seconds=1.0)

    monkeypatch.setattr(seeded_run, "train", at_once)
    monkeypatch.setattr(seeded_run, "predict", None)  # the test file is not touched
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(raw_config(dataset)))
    return tmp_path, done


def space_of(folder, fields=SPACE):
    (folder / "space.yaml").write_text(yaml.safe_dump(fields, sort_keys=False))
    return read_space(folder / "base.yaml", [f"data.cache_dir={folder / 'cache'}"], folder / "space.yaml")


@pytest.mark.slow
def test_each_value_is_trained_with_every_seed_and_the_base_once_for_all(ready):
    folder, done = ready
    assert one_at_a_time(space_of(folder), SEEDS, folder / "out")
    assert len(done) == len(set(done)) == 3 * (1 + 2 + 1 + 2)
    assert done[:2] == ["base/seed1", "train.learning_rate=0.5/seed1"]  # round by round
    with open(folder / "out" / "sensitivity.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3 * (3 + 2 + 2)
    space = space_of(folder)
    for row in rows:
        value = yaml.safe_load(row["value"])
        expected = auc(space.config({row["field"]: value, "train.seed": int(row["seed"])}))
        assert row["validation_auc"] == ("" if expected is None else str(expected))
        assert row["collapsed"] == str(int(expected is not None and expected < COLLAPSED))
        assert row["failed"] == ("Step 7 diverged." if expected is None else "")
    assert one_at_a_time(space_of(folder), SEEDS, folder / "out") and len(done) == 18  # nothing twice


def test_the_table_has_mean_and_deviation_and_marks_what_went_wrong(ready):
    folder, _ = ready
    one_at_a_time(space_of(folder), SEEDS, folder / "out")
    lines = (folder / "out" / "sensitivity.md").read_text().splitlines()
    base = [auc(space_of(folder).config({"train.seed": seed})) for seed in SEEDS]
    shown = f"{statistics.mean(base):.4f} ± {statistics.stdev(base):.4f}"
    assert f"| train.learning_rate | 0.01 | {shown} | 3 | base |" in lines
    assert f"| model.dcn.deep | [16, 8] | {shown} | 3 | base |" in lines
    assert f"| train.learning_rate | 0.5 | 1.2320 | 3 | 1 collapsed (AUC below {COLLAPSED}), 1 failed |" in lines
    assert len(lines) == 2 + 7 + 2 and "neither collapsed nor failed" in lines[-1]
    for name in ("sensitivity", *SPACE):
        assert (folder / "out" / f"{name}.png").stat().st_size > 5000


def test_a_stopped_analysis_goes_on(ready, monkeypatch):
    folder, done = ready
    at_once = seeded_run.train

    def interrupted(config, directory, resume, end_early):
        return at_once(config, directory, resume, end_early) if len(done) < 4 else summary_of("interrupted")

    monkeypatch.setattr(seeded_run, "train", interrupted)
    assert not one_at_a_time(space_of(folder), SEEDS, folder / "out")
    monkeypatch.setattr(seeded_run, "train", at_once)
    assert one_at_a_time(space_of(folder), SEEDS, folder / "out") and len(done) == 18


def test_any_text_may_be_a_value_and_a_place_that_cannot_be_written_is_named(ready):
    folder, _ = ready
    fields = {"data.cache_dir": [f"{folder}/$^$|a", f"{folder}/b"]}
    assert one_at_a_time(space_of(folder, fields), [1], folder / "out")
    assert len((folder / "out" / "sensitivity.md").read_text().splitlines()) == 2 + 2 + 2
    (folder / "file").write_text("")
    for out in (folder / "file", folder / "file" / "x", folder / "file" / "x" / "y"):
        with pytest.raises(InputError, match="file.* cannot be written"):
            one_at_a_time(space_of(folder), [1], out)


def test_what_cannot_be_varied_is_refused_before_any_run(ready):
    folder, done = ready
    for fields, words in (
        ({"train.learning_rate": {"low": 0.1, "high": 1.0}}, "is a range; list the values"),
        ({"train.seed": [1, 2]}, "train.seed cannot be varied"),
        ({"model.dcn.deep": [[8], "wide"]}, "model.dcn.deep"),
    ):
        with pytest.raises(InputError, match=words):
            one_at_a_time(space_of(folder, fields), SEEDS, folder / "out")
    assert done == [] and not (folder / "out").exists()
