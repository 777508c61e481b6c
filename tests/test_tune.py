"""A search tries what its space says, keeps the best by validation alone, and loses nothing."""

import csv
import functools
import json
import math
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from marks import slow
from synthetic import QUICK, merged, raw_config, summary_of

pytest.importorskip("optuna", reason="needs Optuna: pip install optuna")

from mmctr_jax.commands.tune import main
from mmctr_jax.config import load_config, parse_config, set_field
from mmctr_jax.errors import FailedError, InputError, TrainingError, UnfitError
from mmctr_jax.experiments import search as search_module
from mmctr_jax.experiments import seeded_run
from mmctr_jax.experiments.search import search
from mmctr_jax.experiments.space import Choice, Range, read_space
from mmctr_jax.experiments.study import Study
from mmctr_jax.training.loop import train

ROOT = Path(__file__).parents[1]
SPACE = {
    "train.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
    "model.transformer.first_k": [0, 1, 2, 3],
    "model.dcn.deep": [[8], [16, 8]],
    "train.batch_size": {"low": 16, "high": 64},
}


@pytest.fixture
def base(dataset, tmp_path):
    """A config file in a folder of its own."""
    raw = merged(raw_config(dataset), {"train": {"epochs": 1}})
    raw["data"] |= {"test_labels": str(dataset / "test_labels.parquet"), "cache_dir": str(tmp_path / "cache")}
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def space_of(base, fields=None, overrides=()):
    path = base.with_name("space.yaml")
    path.write_text(yaml.safe_dump(SPACE if fields is None else fields, sort_keys=False))
    return read_space(base, list(overrides), path)


def quality(config):
    """A made-up validation AUC, best at learning rate 0.01 with three outputs and the wider network."""
    distance = abs(math.log10(config.train.learning_rate) + 2)
    return 0.9 - 0.05 * distance - 0.01 * (3 - config.model.transformer.first_k) + 0.001 * len(config.model.dcn.deep)


@pytest.fixture
def trained(monkeypatch):
    """In training's place: its outcome at once. The list of run directories that were trained."""
    done = []

    def at_once(config, directory, resume, end_early):
        done.append(directory.name)
        auc = quality(config)
        validation = {"auc": auc, "logloss": 1 - auc, "gauc": None}
        return summary_of(validation=validation)

    monkeypatch.setattr(seeded_run, "train", at_once)
    monkeypatch.setattr(search_module, "predict", None)  # nobody scores a test file unasked
    return done


def trials(out):
    with open(out / "trials.csv", newline="") as stream:
        return list(csv.DictReader(stream))


# The space


def test_a_space_has_values_and_ranges_and_leaves_the_base_as_it_is(base):
    space = space_of(base, overrides=["train.epochs=3"])
    assert space.fields["model.dcn.deep"] == Choice(([8], [16, 8]))
    assert space.fields["train.learning_rate"] == Range(1e-4, 1e-1, log=True)
    assert space.fields["train.batch_size"].whole and not space.fields["train.learning_rate"].whole
    config = space.config({"model.dcn.deep": [16, 8], "train.learning_rate": 0.5})
    assert config.model.dcn.deep == (16, 8) and config.train.learning_rate == 0.5 and config.train.epochs == 3
    assert parse_config(space.settings) == load_config(base, ["train.epochs=3"])


def test_the_papers_grid_is_taken_by_the_config_whole():
    space = read_space(ROOT / "configs" / "microlens_1m.yaml", [], ROOT / "configs" / "tune" / "table1.yaml")
    assert space.size == 4 * 4 * 5 * 5 * 6 == len(list(space.combinations()))
    space.check()
    assert {0, 24} < set(space.fields["model.transformer.first_k"].values)


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"train.learning_rate": [0.1, -1]}, ["train.learning_rate -1", "greater than"]),
        ({"train.learning_rate": {"low": 0.0, "high": 1.0}}, ["train.learning_rate", "greater than"]),
        ({"train.lerning_rate": [0.1]}, ["train.lerning_rate is not a known key", "train.learning_rate"]),
        ({"train.batch_size": [64, 1.5]}, ["train.batch_size", "1.5"]),
        ({"train.batch_size.more": [64]}, ["train.batch_size is not a section"]),
        ({"model.transformer.first_k": [0, 2], "model.transformer.max_pool": [True, False]}, ["first_k 0", "max_pool"]),
        ({"model.name": ["mmctr", "din"]}, ["model"]),  # the base's sections are not DIN's
        ({"train.learning_rate": []}, ["no values"]),
        ({"train.learning_rate": 0.1}, ["neither a list of values nor a range"]),
        ({"train.learning_rate": {"low": 0.1}}, ["neither a list of values nor a range"]),
        ({"train.learning_rate": {"low": 0.1, "high": 0.1}}, ["low must be a number below high"]),
        ({"train.learning_rate": {"low": -1, "high": 0.1, "log": True}}, ["above 0 where log is true"]),
        ({"train.learning_rate": {"low": True, "high": 3}}, ["low must be a number"]),
        ({"train.learning_rate": [0.1, 0.10]}, ["lists 0.1 twice"]),
        ({"data.valid": ["a", "b"]}, ["data.valid cannot be varied"]),
        ({"data": [{"valid": "a"}]}, ["data cannot be varied"]),
        ({"model.transformer.heads": {"low": 1, "high": 4}}, ["heads 3 does not divide"]),
        ({"train.learning_rate": {"low": 1, "high": 10**400}}, ["low must be a number below high"]),
        ({"model.transformer": [{"layers": 1}], "model.transformer.heads": [1]}, ["is a part of"]),
        ({}, ["not a mapping of config fields"]),
        ([1], ["not a mapping of config fields"]),
    ],
)
def test_what_the_config_would_refuse_is_refused_before_the_first_trial(base, trained, tmp_path, fields, words):
    with pytest.raises(InputError) as error:
        search(space_of(base, fields), tmp_path / "out", trials=2)
    assert all(word in str(error.value) for word in words), error.value
    assert trained == [] and not (tmp_path / "out").exists()


def test_what_is_wrong_with_the_data_is_found_before_the_first_trial(base, trained, tmp_path):
    with pytest.raises(InputError, match=r"absent\.parquet"):
        search(space_of(base, overrides=["data.valid=absent.parquet"]), tmp_path / "out")
    with pytest.raises(InputError, match="data.test"):
        space = space_of(base, overrides=["data.test=null", "data.test_labels=null"])
        search(space, tmp_path / "out", score_test=True)
    without = tmp_path / "without.parquet"
    test = pq.read_table(load_config(base).data.test)
    pq.write_table(test.drop_columns("item_id"), without)
    for file, words in ((without, "item_id"), (tmp_path / "nowhere.parquet", "nowhere")):
        with pytest.raises(InputError, match=words):
            space = space_of(base, overrides=[f"data.test={file}", "data.test_labels=null"])
            search(space, tmp_path / "out", score_test=True)
    assert trained == [] and not (tmp_path / "out").exists()


# The search


@pytest.mark.parametrize("sampler", [slow("tpe"), "random"])
def test_the_winner_is_the_best_of_all_trials_and_its_config_is_ready(base, trained, tmp_path, sampler):
    out = tmp_path / "out"
    assert search(space_of(base), out, sampler=sampler, trials=14)
    rows = trials(out)
    assert [row["trial"] for row in rows] == [str(n) for n in range(14)] and trained == [f"{n:04d}" for n in range(14)]
    best = max(rows, key=lambda row: float(row["validation_auc"]))
    config = load_config(out / "best.yaml")
    assert quality(config) == float(best["validation_auc"])
    record = json.loads((out / "trials" / f"{int(best['trial']):04d}.json").read_text())
    assert parse_config(record["config"]) == config
    expected = load_config(base).model_dump()
    for field in ("train.learning_rate", "train.batch_size", "model.transformer.first_k", "model.dcn.deep"):
        set_field(expected, field, functools.reduce(getattr, field.split("."), config), "expected")
    assert config.model_dump() == expected
    for row in rows:
        assert 1e-4 <= float(row["train.learning_rate"]) <= 1e-1 and 16 <= int(row["train.batch_size"]) <= 64
    assert len({row["train.learning_rate"] for row in rows}) == 14
    text = (out / "search.md").read_text()
    assert f"Best: trial {best['trial']}, validation auc {float(best['validation_auc']):.4f}" in text
    assert "Test" not in text and (out / "search.png").stat().st_size > 5000


@pytest.mark.slow
def test_tpe_learns_where_to_look(base, trained, tmp_path):
    space = space_of(base, {name: SPACE[name] for name in ("train.batch_size", "train.learning_rate")})
    search(space, tmp_path / "out", trials=40)
    off = [abs(math.log10(float(row["train.learning_rate"])) + 2) for row in trials(tmp_path / "out")]
    assert sum(off[-15:]) / 15 < 0.6 * sum(off[:10]) / 10
    lines = (tmp_path / "out" / "search.md").read_text().splitlines()
    first, importance = lines[lines.index("| field | importance | best value |") + 2].split(" | ")[:2]
    assert first == "| train.learning_rate" and float(importance) > 0.8  # the batch size changes nothing


@pytest.mark.slow
def test_a_grid_is_gone_through_once_each_and_then_done(base, trained, tmp_path):
    space = space_of(base, {name: SPACE[name] for name in ("model.transformer.first_k", "model.dcn.deep")})
    assert search(space, tmp_path / "out", sampler="grid", trials=3) and len(trained) == 3
    assert search(space, tmp_path / "out", sampler="grid") and len(trained) == 8
    assert search(space, tmp_path / "out", sampler="grid") and len(trained) == 8
    found = {(row["model.transformer.first_k"], row["model.dcn.deep"]) for row in trials(tmp_path / "out")}
    assert found == {(str(k), deep) for k in range(4) for deep in ("[8]", "[16, 8]")}
    with pytest.raises(InputError, match=r"train\.learning_rate is a range"):
        search(space_of(base), tmp_path / "other", sampler="grid")


@pytest.mark.parametrize("moment", ["in training", slow("after training"), slow("in an unforeseen way")])
def test_a_stopped_search_goes_on_and_ends_the_same(base, trained, tmp_path, monkeypatch, moment):
    space = space_of(base)
    assert search(space, tmp_path / "whole", trials=13)
    count, at_once, tell = len(trained), seeded_run.train, Study.tell

    def stopping(config, directory, resume, end_early):
        if len(trained) == count + 11:
            if moment == "in an unforeseen way":
                raise TrainingError("No space left on device.")
            if moment == "in training":
                trained.append(directory.name)
                return summary_of("interrupted")
        return at_once(config, directory, resume, end_early)

    def dying(self, claimed, *rest):
        if claimed.number == 11 and moment == "after training":
            claimed.release()  # as the system does for a process that ends
            raise KeyboardInterrupt
        tell(self, claimed, *rest)

    monkeypatch.setattr(seeded_run, "train", stopping)
    monkeypatch.setattr(Study, "tell", dying)
    try:
        assert not search(space, tmp_path / "parts", trials=13)
    except (KeyboardInterrupt, TrainingError):
        assert moment != "in training"
    monkeypatch.setattr(seeded_run, "train", at_once)
    monkeypatch.setattr(Study, "tell", tell)
    assert search(space, tmp_path / "parts", trials=13)
    again = {"in training": ["0011", "0011"], "after training": ["0011"], "in an unforeseen way": ["0011"]}[moment]
    assert trained[count:] == [f"{n:04d}" for n in range(11)] + again + ["0012"]
    assert trials(tmp_path / "parts") == trials(tmp_path / "whole")
    assert all(row["state"] == "complete" for row in trials(tmp_path / "parts"))


@pytest.mark.slow
def test_processes_share_a_search(base, trained, tmp_path, monkeypatch):
    at_once, together = seeded_run.train, threading.Barrier(2)

    def slowly(config, directory, **rest):
        together.wait(timeout=60)  # goes on only while two trials are at work
        return at_once(config, directory, **rest)

    monkeypatch.setattr(seeded_run, "train", slowly)
    space, ended = space_of(base), []

    def work():
        ended.append(search(space, tmp_path / "out", sampler="random", trials=8))

    workers = [threading.Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert ended == [True, True] and sorted(trained) == [f"{n:04d}" for n in range(8)]
    rows = trials(tmp_path / "out")
    assert all(row["state"] == "complete" for row in rows) and len({row["train.learning_rate"] for row in rows}) == 8


@pytest.mark.slow
def test_a_trial_below_the_median_is_ended_and_never_wins(base, trained, tmp_path, monkeypatch):
    ended = []

    def in_five_evaluations(config, directory, resume, end_early):
        auc = quality(config)
        for number in range(1, 6):
            if end_early(number, auc * number / 5):
                ended.append((directory.name, number))
                return summary_of("pruned", validation={"auc": auc * number / 5})
        return summary_of("5 epochs done", validation={"auc": auc})

    monkeypatch.setattr(seeded_run, "train", in_five_evaluations)
    search(space_of(base), tmp_path / "out", sampler="random", trials=20)
    pruned = [row for row in trials(tmp_path / "out") if row["state"] == "pruned"]
    assert [f"{int(row['trial']):04d}" for row in pruned] == [name for name, _ in ended] and len(pruned) > 3
    assert all(number == 2 for _, number in ended) and min(int(row["trial"]) for row in pruned) >= 5
    search(space_of(base), tmp_path / "unpruned", sampler="random", trials=20, pruning=False)
    assert {row["state"] for row in trials(tmp_path / "unpruned")} == {"complete"}
    assert (tmp_path / "out" / "best.yaml").read_text().splitlines()[2:] == (
        (tmp_path / "unpruned" / "best.yaml").read_text().splitlines()[2:]
    )


def test_a_failed_trial_is_marked_and_the_others_go_on(base, trained, tmp_path, monkeypatch):
    at_once = seeded_run.train

    def diverging(config, directory, resume, end_early):
        if directory.name == "0001":
            raise FailedError("Step 3 diverged | loss nan.")
        if directory.name == "0002":
            raise UnfitError("The table would not fit.")
        return at_once(config, directory, resume, end_early)

    monkeypatch.setattr(seeded_run, "train", diverging)
    assert search(space_of(base), tmp_path / "out", trials=4)
    assert [row["state"] for row in trials(tmp_path / "out")] == ["complete", "failed", "failed", "complete"]
    assert [row["failed"] for row in trials(tmp_path / "out")][1:3] == [
        "Step 3 diverged | loss nan.",
        "The table would not fit.",
    ]
    lines = (tmp_path / "out" / "search.md").read_text().splitlines()
    table = [line for line in lines if line.count("|") == 11]
    assert len(table) == 4 + 2 and "failed: Step 3 diverged / loss nan." in "".join(table)


def test_values_that_come_again_are_not_trained_again(base, trained, tmp_path):
    search(space_of(base, {"model.transformer.first_k": [0, 3]}), tmp_path / "out", sampler="random", trials=6)
    assert len(trained) == 2
    rows = trials(tmp_path / "out")
    assert len({row["validation_auc"] for row in rows}) == 2 and len([row for row in rows if row["same_as"]]) == 4


def test_what_failed_is_not_tried_again(base, trained, tmp_path, monkeypatch):
    tried = []

    def diverging(config, directory, resume, end_early):
        tried.append(directory.name)
        raise FailedError("Step 3 diverged.")

    monkeypatch.setattr(seeded_run, "train", diverging)
    search(space_of(base, {"model.transformer.first_k": [0, 3]}), tmp_path / "out", sampler="random", trials=6)
    assert len(tried) == 2 and {row["state"] for row in trials(tmp_path / "out")} == {"failed"}
    assert not (tmp_path / "out" / "best.yaml").exists()


def test_what_is_no_fault_of_the_trial_stops_the_search_which_goes_on_later(base, trained, tmp_path, monkeypatch):
    at_once = seeded_run.train

    def full(config, directory, resume, end_early):
        if directory.name == "0001":
            raise InputError("Run directory cannot be written: No space left on device.")
        return at_once(config, directory, resume, end_early)

    monkeypatch.setattr(seeded_run, "train", full)
    with pytest.raises(InputError, match="No space left"):
        search(space_of(base), tmp_path / "out", trials=3)
    monkeypatch.setattr(seeded_run, "train", at_once)
    assert search(space_of(base), tmp_path / "out", trials=3) and trained == ["0000", "0001", "0002"]
    assert {row["state"] for row in trials(tmp_path / "out")} == {"complete"}


def test_a_storage_that_fails_stops_the_search_with_one_sentence(base, trained, tmp_path, monkeypatch):
    at_once = seeded_run.train

    def losing(config, directory, resume, end_early):
        if directory.name == "0001":
            (tmp_path / "out" / "study.db").write_bytes(b"")
        end_early(1, 0.5)
        return at_once(config, directory, resume, end_early)

    monkeypatch.setattr(seeded_run, "train", losing)
    with pytest.raises(TrainingError, match="study of .* cannot be read or written"):
        search(space_of(base), tmp_path / "out", trials=3)


HOLD = "import filelock, sys; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); input()"


def test_a_trial_is_left_to_the_process_that_holds_it_until_that_is_killed(base, trained, tmp_path):
    study = Study(space_of(base), tmp_path / "out", "random", True, 1, None)
    study.claim(5).release()  # a trial that the study calls running
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out" / "trials" / ".0000.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        assert study.claim(5).number == 1
        holder.kill()
    assert study.claim(5).number == 0


def test_a_trial_that_has_just_ended_elsewhere_is_not_taken_over(base, trained, tmp_path, monkeypatch):
    study = Study(space_of(base), tmp_path / "out", "random", True, 1, None)
    elsewhere, listed = study.claim(5), study.optuna.get_trials(deepcopy=True)
    study.tell(elsewhere, {"stopped": "done", "validation": {"auc": 0.7}})
    elsewhere.release()
    get_trials = study.optuna.get_trials
    monkeypatch.setattr(
        study.optuna, "get_trials", lambda **asked: listed if asked.get("states") else get_trials(**asked)
    )
    assert study.claim(5).number == 1


@pytest.mark.parametrize("name", [slow("a?b"), slow("a%20b"), "a b#é"])
def test_a_folder_of_any_name_has_its_own_study_and_may_be_renamed(base, trained, tmp_path, name):
    out = tmp_path / name
    search(space_of(base), out, trials=2)
    assert (out / "study.db").stat().st_size > 10_000
    out.rename(tmp_path / "renamed")
    search(space_of(base), tmp_path / "renamed", trials=3)
    assert trained == ["0000", "0001", "0002"] and len(trials(tmp_path / "renamed")) == 3


def test_folders_of_one_name_on_one_storage_are_two_searches(base, trained, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    for folder in ("p", "q"):
        search(space_of(base), tmp_path / folder / "tune", trials=2, storage=storage)
        assert not (tmp_path / folder / "tune" / "study.db").exists()
    assert trained == ["0000", "0001"] * 2
    with pytest.raises(InputError) as error:
        search(space_of(base), tmp_path / "r", storage="nosuch://user:secret@host/name")
    assert "--storage cannot be opened" in str(error.value) and "secret" not in str(error.value)


def test_a_search_needs_no_test_file(base, trained, tmp_path):
    space = space_of(base, overrides=["data.test=absent.parquet", "data.test_labels=absent.parquet"])
    assert search(space, tmp_path / "out", trials=1)


def test_another_base_space_or_data_never_joins_the_search(base, trained, tmp_path, dataset):
    out = tmp_path / "out"
    search(space_of(base), out, trials=2)
    with pytest.raises(InputError, match=r"train\.epochs: 1 ≠ 2"):
        search(space_of(base, overrides=["train.epochs=2"]), out)
    with pytest.raises(InputError, match=r"train\.learning_rate of the space"):
        search(space_of(base, SPACE | {"train.learning_rate": [0.1]}), out)
    with pytest.raises(InputError, match=r"train\.clip_norm of the space"):
        search(space_of(base, SPACE | {"train.clip_norm": [1.0]}), out)
    with pytest.raises(InputError, match=r"contents of data\.valid"):
        search(space_of(base, overrides=[f"data.valid={dataset / 'train.parquet'}"]), out)
    shutil.copy(dataset / "valid.parquet", tmp_path / "moved.parquet")
    moved = space_of(base, overrides=[f"data.valid={tmp_path / 'moved.parquet'}"])
    assert len(trained) == 2 and search(moved, out, sampler="random", trials=3) and len(trained) == 3


def test_a_study_that_cannot_be_opened_is_named(base, trained, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "study.db").write_text("no database " * 100)
    with pytest.raises(InputError, match=r"study\.db cannot be opened"):
        search(space_of(base), tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file cannot be written"):
        search(space_of(base), tmp_path / "file")


def test_the_test_file_is_scored_once_for_the_winner_and_only_when_asked(base, trained, tmp_path, monkeypatch):
    scored = []

    def predict(directory, data, out, labels):
        scored.append((directory.name, data, labels))
        return {"metrics": {"auc": 0.75}}

    monkeypatch.setattr(search_module, "predict", predict)
    space, out = space_of(base), tmp_path / "out"
    search(space, out, trials=3)
    assert scored == []
    for _ in range(2):
        search(space, out, trials=3, score_test=True)
    best = max(trials(out), key=lambda row: float(row["validation_auc"]))
    data = space.settings["data"]
    assert scored == [(f"{int(best['trial']):04d}", data["test"], data["test_labels"])]
    assert f"Test ({data['test']}), scored once with it: auc 0.7500." in (out / "search.md").read_text()

    other = tmp_path / "other.parquet"
    pq.write_table(pq.read_table(data["test"]).slice(10), other)
    again = space_of(base, overrides=[f"data.test={other}", "data.test_labels=null"])
    search(again, out, trials=3, score_test=True)
    assert scored[1:] == [(scored[0][0], str(other), None)]
    assert f"Test ({other}), scored once with it" in (out / "search.md").read_text()


# The whole


@pytest.mark.slow
def test_the_winners_config_trains_to_the_winners_score(base, tmp_path, monkeypatch, capsys):
    base.write_text(yaml.safe_dump(merged(yaml.safe_load(base.read_text()), QUICK)))
    space_of(base, {"train.learning_rate": [0.01, 0.001]})
    arguments = ["--config", str(base), "--space", str(base.with_name("space.yaml")), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["tune", *arguments, "--sampler", "grid", "--test"])
    assert main(sys.argv[1:]) == 0
    rows = trials(tmp_path / "out")
    for row in rows:
        summary = json.loads((tmp_path / "out" / "trials" / f"{int(row['trial']):04d}" / "summary.json").read_text())
        assert float(row["validation_auc"]) == summary["validation"]["auc"]
    again = train(load_config(tmp_path / "out" / "best.yaml"), tmp_path / "again")
    assert again.validation["auc"] == max(float(row["validation_auc"]) for row in rows)
    scored = [
        row["trial"]
        for row in rows
        if (tmp_path / "out/trials" / f"{int(row['trial']):04d}/predictions.parquet").exists()
    ]
    assert len(scored) == 1 and f"Best: trial {scored[0]}" in capsys.readouterr().out


def test_arguments_that_do_not_go_together_are_refused(monkeypatch, capsys, tmp_path):
    arguments = ["tune", "--config", "a", "--space", "b", "--out", str(tmp_path / "out")]
    for more, words in (
        (["--seeds", "2"], "--seeds has a meaning only with --one-at-a-time"),
        (["--one-at-a-time", "--trials", "2"], "--trials has no meaning with --one-at-a-time"),
        (["--one-at-a-time", "--test"], "--test has no meaning"),
        (["--one-at-a-time", "--seed", "0"], "--seed has no meaning"),
        (["--trials", "0"], "--trials must be at least 1"),
        (["--seed", "-1"], "--seed must be from 0"),
    ):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        with pytest.raises(SystemExit) as exit:
            main(sys.argv[1:])
        assert exit.value.code == 2 and words in capsys.readouterr().err
