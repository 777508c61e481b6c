"""Training as a whole: it learns, keeps what it says, and resumes as if nothing had happened."""

import json
import shutil
import time

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from marks import slow
from same_run import assert_same_run, last_checkpoint
from synthetic import QUICK, config_for, write_dataset

from mmctr_jax.config import load_config
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.optimization.schedules import Cosine
from mmctr_jax.prediction.predictor import Predictor
from mmctr_jax.runs import checkpoint
from mmctr_jax.runs.checkpoint import Checkpoints
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.recorder import read_records
from mmctr_jax.runs.summary import StopReason
from mmctr_jax.training import loop as training
from mmctr_jax.training.loop import train
from mmctr_jax.training.metrics import auc, logloss


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """An uninterrupted run: 300 rows in batches of 64 (the last of 44), 3 epochs of 5 steps."""
    config = config_for(dataset, train={"epochs": 3, "eval_every": 4, "length_buckets": [2]})
    directory = tmp_path_factory.mktemp("runs") / "whole"
    return config, directory, train(config, directory)


def test_run_directory_holds_what_it_says(whole):
    config, directory, summary = whole
    assert {p.name for p in directory.iterdir() if not p.name.startswith(".")} == {
        "config.yaml", "metadata.json", "items.npz", "metrics.jsonl", "tensorboard", "curves.png", "train.log",
        "checkpoints", "summary.json",
    }  # fmt: skip
    resolved = load_config(directory / "config.yaml")
    assert resolved.features.num_items == 60 and resolved.features.item_features[0].vocab_size == 12
    metadata = json.loads((directory / "metadata.json").read_text())
    assert set(metadata) == {
        *("versions", "python", "devices", "seed", "training_lengths", "data", "git", "codebooks", "numbering")
    }
    assert metadata["seed"] == 1 and metadata["devices"]["count"] == 8
    assert set(metadata["data"]) == {"train", "valid", "item_info", "items"}
    assert json.loads((directory / "summary.json").read_text()) == summary.to_json()
    assert RunDirectory(directory).read_summary() == summary
    assert (directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert any((directory / "tensorboard").iterdir())
    assert "validation auc" in (directory / "train.log").read_text()
    assert len(list((directory / "checkpoints").iterdir())) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["gauc", "logloss"])
def test_the_metric_that_is_monitored_decides_which_checkpoint_is_best(dataset, tmp_path, monitor):
    config = config_for(dataset, train={"epochs": 6, "eval_every": 1, "patience": 99, "monitor": monitor}, **QUICK)
    train(config, tmp_path / "run")
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    of_steps = {r["step"]: r[monitor] for r in records if r["kind"] == "validation"}
    best = (min if monitor == "logloss" else max)(of_steps, key=of_steps.get)
    assert RunDirectory(tmp_path / "run").read_summary().best_step == best == Predictor.load(tmp_path / "run").step
    assert len(set(of_steps.values())) > 3


def test_grouped_auc_needs_users(dataset, tmp_path):
    pq.write_table(pq.read_table(dataset / "valid.parquet").drop_columns("user_id"), tmp_path / "valid.parquet")
    config = config_for(dataset, data={"valid": str(tmp_path / "valid.parquet")}, train={"monitor": "gauc"})
    with pytest.raises(InputError, match="train.monitor is gauc, and .* has no column user_id"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_grouped_auc_needs_a_user_with_a_click_and_a_non_click(dataset, tmp_path):
    table = pq.read_table(dataset / "valid.parquet")
    own = table.set_column(table.schema.get_field_index("user_id"), "user_id", pa.array(range(1, len(table) + 1)))
    pq.write_table(own, tmp_path / "valid.parquet")
    config = config_for(dataset, data={"valid": str(tmp_path / "valid.parquet")}, train={"monitor": "gauc"})
    with pytest.raises(InputError, match="train.monitor is gauc, and no user_id of .* has both"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_summary_says_how_it_ended(whole):
    _, _, summary = whole
    assert summary.stopped is StopReason.EPOCHS_DONE and summary.stopped_because == "3 epochs done"
    assert summary.steps == 15 and summary.epochs == 3


def test_it_learns(dataset, tmp_path):
    """The clicks' true probabilities have an AUC of about 0.94; 300 rows teach a part of them."""
    summary = train(config_for(dataset, train={"epochs": 12, "patience": 12, "lr_factor": 1.0}), tmp_path / "run")
    assert summary.validation["auc"] > 0.75


def test_validations_come_when_due_and_once_more_at_the_end(whole):
    _, directory, _ = whole
    records = read_records(directory / "metrics.jsonl")
    assert [r["step"] for r in records if r["kind"] == "validation"] == [4, 8, 12, 15]
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 16))


@pytest.mark.slow
def test_training_loss_weighs_the_partial_batch_by_its_rows(dataset, tmp_path):
    """One record over an epoch of 4 full batches and one of 44 rows; a rate of nearly 0 keeps the model still."""
    config = config_for(
        dataset,
        train={"epochs": 1, "eval_every": 100, "learning_rate": 1e-12},
        model={"transformer": {"dropout": 0.0}, "dcn": {"deep_dropout": 0.0}},
    )
    train(config, tmp_path / "run")
    record = [r for r in read_records(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"][-1]
    logits = Predictor.load(tmp_path / "run").logits(config.data.train)
    labels = pq.read_table(config.data.train)["label"].to_numpy()
    assert record["step"] == 5 and record["loss"] == pytest.approx(logloss(labels, logits), rel=1e-5)


class StopAt:
    """Stands for the signal handler: asks to stop before a given step."""

    def __init__(self, step):
        self.step = step

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def requested(self, step):
        return step == self.step


@pytest.mark.parametrize("steps", [(7,), slow((1, 4, 14))])
def test_an_interrupted_and_resumed_run_equals_the_uninterrupted_one(whole, tmp_path, monkeypatch, steps):
    """In the middle of an epoch, after the first step, right after a validation, before the last step."""
    config, directory, summary = whole
    for i, step in enumerate(steps):
        monkeypatch.setattr(training, "Interrupt", lambda step=step: StopAt(step))
        partial = train(config, tmp_path / "run", resume=i > 0)
        assert partial.stopped is StopReason.INTERRUPTED and partial.steps == step
    monkeypatch.undo()
    resumed = train(config, tmp_path / "run", resume=True)
    assert resumed.validation == summary.validation and resumed.best_step == summary.best_step
    assert_same_run(directory, tmp_path / "run")


AVERAGED = {
    "optimizer": "adamw",
    "schedule": {"name": "cosine", "warmup_epochs": 0.6, "final_factor": 0.1},
    "weight_decay": {"matrices": 0.1},
    "ema": 0.8,
    "epochs": 3,
}
WARMED_UP = {"optimizer": "sgd", "schedule": "warmup", "epochs": 2}  # an optimiser without a state


@pytest.fixture(scope="module")
def averaged(dataset, tmp_path_factory):
    """A run with a moving average and a schedule, and its weights after each step."""
    config, make, weights = config_for(dataset, train=AVERAGED, **QUICK), training.make_train_step, []

    def watched(*args):
        step = make(*args)

        def run(*args):
            state, metrics = step(*args)
            weights.append(jax.tree.map(np.array, state.params))  # copied: the next step takes the state's memory
            return state, metrics

        return run

    directory = tmp_path_factory.mktemp("averaged") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "make_train_step", watched)
        summary = train(config, directory)
    return config, directory, summary, weights


@pytest.mark.slow
def test_a_run_resumed_in_the_middle_of_its_schedule_equals_the_uninterrupted_one(averaged, tmp_path, monkeypatch):
    config, directory, summary, _ = averaged
    for i, step in enumerate((2, 7)):  # in the warm-up, and after
        monkeypatch.setattr(training, "Interrupt", lambda step=step: StopAt(step))
        train(config, tmp_path / "run", resume=i > 0)
    monkeypatch.undo()
    assert train(config, tmp_path / "run", resume=True).validation == summary.validation
    assert_same_run(directory, tmp_path / "run")


@pytest.mark.slow
def test_an_optimiser_without_a_state_is_saved_and_resumed(dataset, tmp_path, monkeypatch):
    config = config_for(dataset, train=WARMED_UP, **QUICK)
    train(config, tmp_path / "whole")
    monkeypatch.setattr(training, "Interrupt", lambda: StopAt(3))
    train(config, tmp_path / "run")
    monkeypatch.undo()
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_the_average_of_the_weights_is_saved_validated_and_predicted_with(averaged):
    config, directory, summary, weights = averaged
    state, _, _ = last_checkpoint(directory)
    decays = config.train.ema ** np.arange(len(weights))[::-1]
    expected = jax.tree.map(lambda *w: np.average(np.stack(w).astype(float), axis=0, weights=decays), *weights)
    for x, y, last, now in zip(
        *map(jax.tree.leaves, (state.averaged, expected, weights[-1], state.params)), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(now, last)
    assert any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (state.averaged, state.params)), strict=True))
    labels = pq.read_table(config.data.valid)["label"].to_numpy()
    logits = Predictor.load(directory).logits(config.data.valid)
    assert auc(labels, logits) == pytest.approx(summary.validation["auc"], abs=1e-9)
    assert logloss(labels, logits) == pytest.approx(summary.validation["logloss"], abs=1e-6)


def test_learning_rates_follow_the_schedule_whatever_the_validations_say(averaged):
    config, directory, _, _ = averaged
    cosine = Cosine(epochs=3, warmup_epochs=0.6, final_factor=0.1)
    for record in read_records(directory / "metrics.jsonl"):
        assert record["learning_rate"] == pytest.approx(config.train.learning_rate * cosine.factor(record["step"] / 5))


def test_a_schedule_that_train_epochs_decides_is_not_changed_by_a_resumption(averaged, tmp_path):
    config, directory, _, _ = averaged
    shutil.copytree(directory, tmp_path / "run")
    longer = config.model_copy(update={"train": config.train.model_copy(update={"epochs": 4})})
    assert "train.schedule.epochs: 3.0 ≠ 4.0" in refused(longer, tmp_path / "run", resume=True)
    schedule = longer.train.schedule.model_copy(update={"epochs": 3.0})
    longer = longer.model_copy(update={"train": longer.train.model_copy(update={"schedule": schedule})})
    assert train(longer, tmp_path / "run", resume=True).steps == 20


def test_a_run_killed_before_a_checkpoint_goes_back_to_the_one_before(whole, tmp_path):
    """What the killed run wrote beyond its last checkpoint is forgotten: as if it had never been."""
    config, directory, _ = whole
    train(config.model_copy(update={"train": config.train.model_copy(update={"epochs": 2})}), tmp_path / "run")
    assert last_checkpoint(tmp_path / "run")[1]["position"]["step"] == 10
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "10")
    with open(tmp_path / "run" / "metrics.jsonl", "a") as stream:
        stream.write('{"kind": "train", "step": 11, "lo')
    train(config, tmp_path / "run", resume=True)
    ours, theirs = last_checkpoint(tmp_path / "run")[0], last_checkpoint(directory)[0]
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(x, y)
    assert [r["step"] for r in read_records(tmp_path / "run" / "metrics.jsonl") if r["kind"] == "train"] == list(
        range(1, 16)
    )


def test_resuming_a_finished_run_changes_nothing(whole, tmp_path):
    config, directory, summary = whole
    shutil.copytree(directory, tmp_path / "run")
    again = train(config, tmp_path / "run", resume=True)
    assert again.validation == summary.validation and again.steps == summary.steps
    assert_same_run(directory, tmp_path / "run")


def test_resume_without_a_run_starts_one(dataset, tmp_path):
    assert train(config_for(dataset, train={"epochs": 1}), tmp_path / "run", resume=True).steps == 5


def test_checkpoints_between_validations(dataset, tmp_path, monkeypatch):
    saved = []
    save = Checkpoints.save
    monkeypatch.setattr(
        Checkpoints,
        "save",
        lambda self, state, progress, step, best: saved.append(step) or save(self, state, progress, step, best),
    )
    train(config_for(dataset, train={"epochs": 2, "checkpoint_every": 2}), tmp_path / "run")
    assert saved == [2, 4, 5, 6, 8, 10]
    kept = {int(p.name) for p in (tmp_path / "run" / "checkpoints").iterdir()}
    assert 10 in kept and len(kept) <= 2


def test_the_best_checkpoint_stays_and_is_the_one_that_scores(dataset, tmp_path):
    """A learning rate that ruins the model after its first validation: best stays at the first."""
    config = config_for(dataset, train={"epochs": 4, "learning_rate": 0.01, "patience": 2, "lr_factor": 1.0})
    ruin = config_for(dataset, train={"epochs": 50, "learning_rate": 3.0, "patience": 2})
    for i, c in enumerate((config, ruin)):
        summary = train(c, tmp_path / f"run{i}")
        kept = {int(p.name) for p in (tmp_path / f"run{i}" / "checkpoints").iterdir()}
        assert kept == {summary.best_step, summary.steps}
        predictor = Predictor.load(tmp_path / f"run{i}")
        assert predictor.step == summary.best_step
        labels = pq.read_table(c.data.valid)["label"].to_numpy()
        assert auc(labels, predictor.logits(c.data.valid)) == pytest.approx(summary.validation["auc"], abs=1e-9)
    assert summary.stopped is StopReason.PATIENCE_EXHAUSTED and summary.best_step < summary.steps
    assert summary.stopped_because == "no better validation in 2 validations"


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_last_checkpoint(dataset, tmp_path, monkeypatch):
    make = training.make_train_step

    def poisoned(*args):
        step = make(*args)

        def run(state, batch, items, rate):
            if int(state.step) == 7:
                rate = np.float32("nan")  # parameters are NaN from step 8 on, the loss from step 9 on
            return step(state, batch, items, rate)

        return run

    monkeypatch.setattr(training, "make_train_step", poisoned)
    with pytest.raises(TrainingError) as error:
        train(config_for(dataset), tmp_path / "run")
    assert (
        str(error.value).startswith("Step 9 diverged")
        and "nan" in str(error.value)
        and "learning rate 0.01" in str(error.value)
        and "step 5 is the last good" in str(error.value)
    )
    state, progress, _ = last_checkpoint(tmp_path / "run")
    assert progress["position"]["step"] == 5
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_a_model_ruined_by_its_last_step_is_never_called_a_result(dataset, tmp_path, monkeypatch):
    """Loss and gradient of every step are finite here; only what the last update made is not."""
    make = training.make_train_step

    def poisoned(*args):
        step = make(*args)
        return lambda state, batch, items, rate: step(
            state, batch, items, np.float32("nan") if int(state.step) == 4 else rate
        )

    monkeypatch.setattr(training, "make_train_step", poisoned)
    with pytest.raises(TrainingError, match="Step 5 diverged: 70 of 70 validation logits are not finite"):
        train(config_for(dataset), tmp_path / "validation")
    with pytest.raises(TrainingError, match="Step 5 diverged: parameters"):
        train(config_for(dataset, train={"eval_every": 7, "checkpoint_every": 5}), tmp_path / "checkpoint")
    for name in ("validation", "checkpoint"):
        assert list((tmp_path / name / "checkpoints").iterdir()) == []
        assert not (tmp_path / name / "summary.json").exists()


@pytest.mark.slow
def test_samples_per_second_counts_loading_and_computing_but_not_validating(dataset, tmp_path, monkeypatch):
    """Per step: 50 ms of loading, 50 ms of computing. Validation takes a second and does not count."""
    make, load, make_score = training.make_train_step, training.train_batches, training.make_score

    def slow_step(*args):
        step = make(*args)

        def run(*args):
            time.sleep(0.05)
            return step(*args)

        return run

    def slow_batches(*args, **options):
        for batch in load(*args, **options):
            time.sleep(0.05)
            yield batch

    def slow_make_score(*args):
        score = make_score(*args)

        def run(*args):
            time.sleep(1)
            return score(*args)

        return run

    patches = {"make_train_step": slow_step, "train_batches": slow_batches, "make_score": slow_make_score}
    for name, patched in patches.items():
        monkeypatch.setattr(training, name, patched)
    summary = train(config_for(dataset, train={"epochs": 4, "checkpoint_every": 2}), tmp_path / "run")
    # 19 counted steps of 0.1 s and more for 1,136 rows (the first, of 64, compiles): at most 600 a second.
    assert 100 < summary.samples_per_second < 600


def test_settings_that_may_change_on_resume_are_taken_over(whole, tmp_path):
    config, directory, _ = whole
    shutil.copytree(directory, tmp_path / "run")
    data = config.data.model_copy(update={"test": "/another.parquet"})
    more = config.train.model_copy(update={"epochs": 4})
    summary = train(config.model_copy(update={"data": data, "train": more}), tmp_path / "run", resume=True)
    assert summary.steps == 20
    now = RunDirectory(tmp_path / "run").read_config()
    assert now.data.test == "/another.parquet" and now.train.epochs == 4


def refused(config, directory, resume=False):
    before = {p: p.stat().st_mtime_ns for p in sorted(directory.rglob("*"))} if directory.exists() else {}
    with pytest.raises(InputError) as error:
        train(config, directory, resume)
    after = {p: p.stat().st_mtime_ns for p in sorted(directory.rglob("*"))} if directory.exists() else {}
    assert {p: t for p, t in after.items() if p.name != ".lock"} == {
        p: t for p, t in before.items() if p.name != ".lock"
    }
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_existing_run_is_never_overwritten(whole):
    config, directory, _ = whole
    assert "--resume" in refused(config, directory)


def test_resume_refuses_another_config_and_other_data(whole, dataset, tmp_path):
    config, directory, _ = whole
    shutil.copytree(directory, tmp_path / "run")
    other = config_for(dataset, train={"epochs": 3, "eval_every": 4, "length_buckets": [2], "seed": 2})
    assert "train.seed: 1 ≠ 2" in refused(other, tmp_path / "run", resume=True)
    data = write_dataset(tmp_path / "data")
    there = config_for(data, train={"epochs": 3, "eval_every": 4, "length_buckets": [2]})
    assert train(there, tmp_path / "run", resume=True).steps == 15  # the same bytes elsewhere are the same data
    write_dataset(data, seed=5)
    assert "data.train has changed" in refused(there, tmp_path / "run", resume=True)


def test_resume_refuses_a_run_whose_batches_were_of_other_lengths(whole, tmp_path):
    """As after a version whose default was another: the row order is not the same."""
    config, directory, _ = whole
    shutil.copytree(directory, tmp_path / "run")
    metadata = json.loads((tmp_path / "run" / "metadata.json").read_text())
    assert metadata["training_lengths"] == [2, 10]
    for began in ([4, 10], None):
        (tmp_path / "run" / "metadata.json").write_text(json.dumps(metadata | {"training_lengths": began}))
        assert "other lengths" in refused(config, tmp_path / "run", resume=True)


def test_a_folder_that_is_no_run_directory(dataset, tmp_path):
    (tmp_path / "precious.txt").write_text("do not touch")
    config = config_for(dataset)
    assert "exists" in refused(config, tmp_path)
    assert "not a run directory" in refused(config, tmp_path, resume=True)
    assert "is a file" in refused(config, tmp_path / "precious.txt")


def test_two_trainings_on_one_run_directory(whole):
    config, directory, _ = whole
    with RunDirectory(directory).lock():
        assert "Another training" in refused(config, directory, resume=True)


def damage(checkpoint, how):
    """Shortens, changes or removes the largest file of the parameters or of the optimizer's state."""
    file = max((f for f in (checkpoint / how[0]).rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    if how[1] == "cut short":
        file.write_bytes(content[: len(content) // 2])
    elif how[1] == "flipped":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()


@pytest.mark.parametrize(
    ("part", "what"),
    [("model", "flipped"), slow("model", "missing"), ("optimizer", "cut short"), slow("progress", "flipped")],
)
def test_a_damaged_checkpoint_is_found_out_and_the_one_before_gives_the_same_model(whole, tmp_path, part, what):
    config, directory, summary = whole
    copy = tmp_path / "run"
    shutil.copytree(directory, copy)
    damage(copy / "checkpoints" / "15", (part, what))
    again = train(config, copy, resume=True)
    assert again.validation == summary.validation
    assert_same_run(copy, directory)
    assert [p.name.split("-")[0] for p in (copy / "damaged").iterdir()] == ["15"]


def test_a_bit_of_an_array_that_its_file_does_not_miss(whole):
    """The sums see every change of one number, and two that are swapped."""
    x = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    sums = checkpoint._sums({"a": x, "b": x[0]})
    assert checkpoint._sums({"a": jax.device_put(x), "b": x[0]}) == sums
    for place in np.ndindex(x.shape):
        changed = x.copy()
        changed.view(np.uint32)[place] ^= 1 << 31
        assert checkpoint._sums({"a": changed, "b": x[0]})[0] != sums[0]
    assert checkpoint._sums({"a": x[::-1].copy(), "b": x[0]})[0] != sums[0]


def test_predict_takes_the_other_checkpoint_where_one_is_damaged(whole, tmp_path, capsys):
    directory = whole[1]
    for damaged, taken in (("4", 15), ("15", 4)):
        copy = tmp_path / damaged
        shutil.copytree(directory, copy)
        damage(copy / "checkpoints" / damaged, ("model" if damaged == "4" else "progress", "flipped"))
        assert Predictor.load(copy).step == taken
        assert f"Taking step {taken} instead" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_without_a_whole_checkpoint_or_of_another_config(whole, tmp_path):
    config, directory, _ = whole
    for name in ("cut", "other"):
        shutil.copytree(directory, tmp_path / name)
    for step in (4, 15):
        damage(tmp_path / "cut" / "checkpoints" / str(step), ("model", "cut short"))
    with pytest.raises(InputError, match="cannot be restored"):
        train(config, tmp_path / "cut", resume=True)
    assert not (tmp_path / "cut" / "damaged").exists()
    with pytest.raises(InputError, match="cannot be restored"):
        Predictor.load(tmp_path / "cut")
    text = (tmp_path / "other" / "config.yaml").read_text().replace("first_k: 3", "first_k: 2")
    (tmp_path / "other" / "config.yaml").write_text(text)
    with pytest.raises(InputError, match="cannot be restored"):
        Predictor.load(tmp_path / "other")


def test_a_batch_smaller_than_the_number_of_devices(dataset, tmp_path):
    assert "number of devices, 8" in refused(config_for(dataset, train={"batch_size": 7}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_the_devices_do_not_divide(dataset, tmp_path):
    summary = train(config_for(dataset, train={"batch_size": 61, "eval_batch_size": 13, "epochs": 1}), tmp_path / "run")
    assert summary.steps == 5


def test_a_validation_set_of_one_class(dataset, tmp_path):
    table = pq.read_table(dataset / "valid.parquet")
    pq.write_table(table.filter(table["label"].to_numpy() == 1), tmp_path / "valid.parquet")
    config = config_for(dataset, data={"valid": str(tmp_path / "valid.parquet")})
    assert "every label is 1" in refused(config, tmp_path / "run")


def test_a_place_that_cannot_be_written(dataset, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        train(config_for(dataset), tmp_path / "file" / "run")
