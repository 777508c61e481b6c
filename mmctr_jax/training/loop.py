"""The training loop: batches → steps → validations → the best checkpoint."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, fields
from functools import partial
from logging import LogRecord
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmctr_jax.config import Config, load_config
from mmctr_jax.console import Progress, log, log_to_file, show, shown
from mmctr_jax.data.items import fingerprint
from mmctr_jax.data.loader import batches_per_epoch, train_batches
from mmctr_jax.devices.flags import plain_jax
from mmctr_jax.devices.hosts import (
    all_devices,
    check_equal_on_all_hosts,
    check_same_settings,
    ending_together,
    give_up_if_lost,
    of_process_0,
    raising_on_all_hosts,
)
from mmctr_jax.devices.sharding import make_mesh, on_devices, put_items, share
from mmctr_jax.errors import FailedError, InputError, TrainingError
from mmctr_jax.files import writing
from mmctr_jax.interrupt import Interrupt
from mmctr_jax.optimization.norms import group_names
from mmctr_jax.remote import is_elsewhere
from mmctr_jax.remote import shown as shown_path
from mmctr_jax.runs.checkpoint import Checkpoints
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied, copied_on
from mmctr_jax.runs.recorder import Recorder
from mmctr_jax.runs.state import TrainState
from mmctr_jax.runs.summary import StopReason, Summary
from mmctr_jax.runs.trackers import check_trackers
from mmctr_jax.training import metrics
from mmctr_jax.training.data import (
    TrainingData,
    check_batch_fills_devices,
    check_tables_fit_devices,
    load_training_data,
)
from mmctr_jax.training.plateau import Plateau
from mmctr_jax.training.scoring import make_score
from mmctr_jax.training.step import all_finite, init_state, make_predicting, make_train_step
from mmctr_jax.training.stopwatch import Stopwatch
from mmctr_jax.training.warm_start import check_continues, learned_by, restored, warm_started

_RECORDS_PER_VALIDATION = 20  # training records between two validations
_DRAW_SECONDS = 10.0
_training = threading.RLock()


@dataclass
class Position:
    """Where the run stands, apart from the device's state. Saved with it; equal positions continue equally."""

    step: int = 0
    """Steps done: the loader's position, too."""
    loss_sum: float = 0.0
    """Over the rows trained on since the last training record."""
    row_sum: int = 0
    smoothed_loss: float | None = None
    """As the lines of progress show it."""


@plain_jax()
def train(
    config: Config | str | Path,
    directory: str | Path,
    resume: bool = False,
    end_early: Callable[[int, float], bool] | None = None,
    init_from: str | Path | None = None,
) -> Summary:
    """Trains, keeping everything in `directory`; returns the summary that is also written there.

    Args:
        config: What to train, on which data; or the path of a config file.
        directory: The run directory; new, or with `resume` that of a run of the same config and data. At a URL, it is
            kept in the user's cache while training, and copied there twice a minute and at the end.
        resume: Continue where the run stopped; begin if there is none.
        end_early: Called after each validation with its number, from 1, and its AUC. Where it returns true, training
            stops (`StopReason.PRUNED`).
        init_from: A run directory whose best weights the training begins with; ids that it did not have begin fresh.
            A resumed run goes on with what it began with.

    Raises:
        InputError: Something is wrong with config, data or directory; nothing was overwritten.
        FailedError: The loss is not finite, or the memory not enough.
        TrainingError: Something cannot be written.
    """
    all_devices()  # or no training, before anything is written
    with _alone(), shown() as said, ending_together(), copied_on(directory, resume) as folder:
        return _train(config, folder, resume, end_early, init_from, said)


@contextmanager
def _alone() -> Iterator[None]:
    """One training at a time in a process: they share its devices, and Orbax cannot save two at once."""
    if not _training.acquire(blocking=False):
        log.info("Another thread trains; this training waits for its end.")
        _training.acquire()
    try:
        yield
    finally:
        _training.release()


def _train(
    config: Config | str | Path,
    directory: Path,
    resume: bool,
    end_early: Callable[[int, float], bool] | None,
    init_from: str | Path | None,
    said: list[LogRecord],
) -> Summary:
    run = RunDirectory(directory)
    config = config if isinstance(config, Config) else load_config(config)
    config = config.model_copy(update={"train": config.train.resolved})
    settings = config.model_dump(mode="json", exclude={"data"})  # whose files' contents are compared, below
    settings_of_0 = of_process_0(settings)
    with raising_on_all_hosts():
        check_same_settings(settings, settings_of_0)
        run.check_free(resume)
        check_batch_fills_devices(config)
        check_trackers(config.train.trackers)
        begun = resume and run.is_started
        if begun:
            init_from = None if run.has_checkpoint else _begun_from(run, init_from)
        before = RunDirectory(copied(init_from)) if init_from else None
        learned = learned_by(before, config) if before else None
        load = partial(load_training_data, config, run.read_items() if begun else None, learned)
        data = load() if jax.process_index() == 0 else None
    kept = of_process_0(data and data.kept)
    with raising_on_all_hosts():
        data = data or load(kept)
        check_tables_fit_devices(data.config)
        if before and not begun:
            check_continues(before, data)
        if begun:
            run.check_same_run(data.config, data.fingerprints, data.lengths)
    features = data.config.features
    derived = {f.name: data.items.table[f.name] for f in features.item_features if f.is_derived}
    derived |= {features.item: data.items.table[features.item]} if features.item_rows else {}
    check_equal_on_all_hosts(data.fingerprints | {"derived item features": fingerprint(derived)})
    learned_state = (restored(before, make_mesh()), before) if before else None
    with (
        _opened(run, data, begun, init_from, said) as recorder,
        run.checkpoints(writable=True) as checkpoints,
        _failures_explained(run, checkpoints),
    ):
        trainer = _Trainer(data, checkpoints, recorder, end_early, learned_state)
        del learned_state
        with Interrupt() as interrupt:
            summary = trainer.run(interrupt)
            if recorder:
                recorder.draw()
                run.write_summary(summary)
    return summary


def _whole_path(run: str | Path) -> str:
    return shown_path(run if is_elsewhere(run) else Path(run).resolve())


def _begun_from(run: RunDirectory, asked: str | Path | None) -> str | None:
    """The run whose weights a training that was stopped before its first checkpoint began with.

    Raises: InputError if another one is asked for now: its items may have been made otherwise.
    """
    began = run.read_metadata().get("init_from")
    if asked and (began is None or _whole_path(asked) != _whole_path(began)):
        raise InputError(
            f"{run} was begun {f'with --init-from {began}' if began else 'without --init-from'} and has no checkpoint "
            f"yet; remove it to begin with {asked}, or name another --run-dir."
        )
    return began


@contextmanager
def _opened(
    run: RunDirectory, data: TrainingData, begun: bool, init_from: str | Path | None, said: list[LogRecord]
) -> Iterator[Recorder | None]:
    """Locks the run directory, begins it unless it is `begun`, and keeps log and records in it: on process 0 alone.

    Raises: InputError, on all processes, if another training is at work there, or the system refuses.
    """
    with ExitStack() as stack:
        recorder = None
        with raising_on_all_hosts():
            if jax.process_index() == 0:
                stack.enter_context(run.lock())
                kept = data.config.model_copy(update={"data": data.config.data.absolute})
                with writing(f"Run directory {run}", "make room there, or name another with --run-dir"):
                    if begun:
                        run.write_config(kept)
                    else:
                        more = {"training_lengths": data.lengths, "numbering": data.numbering}
                        more |= {"init_from": _whole_path(init_from)} if init_from else {}
                        run.write_start(kept, data.items, data.fingerprints, **more)
                    stack.enter_context(log_to_file(run.log_file, said))
                recorder = stack.enter_context(run.recorder(kept))
        yield recorder


@contextmanager
def _failures_explained(run: RunDirectory, checkpoints: Checkpoints) -> Iterator[None]:
    """What the system refuses during training becomes a TrainingError; what does not fit the device, a FailedError."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"Training stopped: {error.filename or run}: {error.strerror or error}; {checkpoints.kept}. Mend "
            "that, then go on with --resume."
        ) from None
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        give_up_if_lost(error)  # at once: what is left in order waits for the others
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise FailedError(
            "The device's memory, or what other processes leave of it, is not enough for this model and batch; lower "
            "train.batch_size, train.eval_batch_size, model.embedding_dim or model.max_history, or set "
            "train.sharding to fsdp."
        ) from None


class _Trainer:
    """State, data and helpers of one training. `run` is the loop; the other methods are its verbs."""

    def __init__(
        self,
        data: TrainingData,
        checkpoints: Checkpoints,
        recorder: Recorder | None,
        end_early: Callable[[int, float], bool] | None,
        learned: tuple[TrainState, RunDirectory] | None,
    ):
        self.data, self.checkpoints, self.recorder, self.end_early = data, checkpoints, recorder, end_early
        self.pruned = False
        config = self.config = data.config
        self.mesh = make_mesh()
        self.items = put_items(data.items.table, self.mesh, config)
        self.train_step = make_train_step(config, self.mesh)
        self.predicting = make_predicting(config, self.mesh)
        self.score = make_score(config, self.mesh)
        self.state = init_state(config, self.items, self.mesh)
        self.position, self.stopwatch = Position(), Stopwatch()
        self.plateau = Plateau(config.train.learning_rate)
        self.best_metrics: dict[str, float] = {}

        self.steps_per_epoch = batches_per_epoch(data.train.rows, config.train.batch_size)
        self.total_steps = self.steps_per_epoch * config.train.epochs
        self.validate_every = config.train.eval_every or self.steps_per_epoch
        self.record_every = -(-self.validate_every // _RECORDS_PER_VALIDATION)
        self._pending: tuple[dict[str, jax.Array], int] | None = None  # of a step dispatched and not read yet
        self._last_metric: float | None = None
        self._group_norms = np.zeros(0)  # of the last step that was read, in the order of group_names
        self._compiled: set[int] = set()  # lengths of histories
        if learned and not checkpoints.steps:
            self.state = warm_started(self.state, *learned)
        self._restore()
        if recorder:
            recorder.open_at(self.position.step)

    # The loop

    def run(self, interrupt: Interrupt) -> Summary:
        train, position = self.config.train, self.position
        log.info(
            f"Training {count_parameters(self.state.params):,} parameters on {self.data.train.rows:,} rows with "
            f"{jax.device_count()} {jax.devices()[0].device_kind} device(s): "
            f"at most {train.epochs} epochs of {self.steps_per_epoch:,} steps."
        )
        batches = train_batches(
            self.data.train,
            batch_size=train.batch_size,
            lengths=self.data.lengths,
            seed=train.seed,
            epochs=train.epochs,
            start=position.step,
            share=share(),
        )
        batches = on_devices(batches, self.mesh)
        total, done = (self._rows_until(step) for step in (self.total_steps, position.step))
        with Progress("Training", total, "samples", done) as bar:
            while (stop := self._reason_to_stop(interrupt)) is None:
                rows = self._step(next(batches), bar)
                bar.advance(rows, self._status())
                if position.step % self.record_every == 0:
                    self._record_training()
                validate = position.step % self.validate_every == 0 or position.step == self.total_steps
                save = validate or (train.checkpoint_every and position.step % train.checkpoint_every == 0)
                if save or not self.stopwatch.running:  # where time begins or ends to count, the step must be done
                    self._read_metrics()
                self.stopwatch.lap(rows)
                if validate:
                    self._validate()
                if save:
                    self._save()
                    self.stopwatch.restart()
        self._save()
        self.checkpoints.wait()
        return self._summary(stop)

    def _reason_to_stop(self, interrupt: Interrupt) -> StopReason | None:
        if self.plateau.exhausted(self.config.train):
            return StopReason.PATIENCE_EXHAUSTED
        if self.position.step >= self.total_steps:
            return StopReason.EPOCHS_DONE
        if self.pruned:
            return StopReason.PRUNED
        return StopReason.INTERRUPTED if interrupt.requested(self.position.step) else None

    # One step

    def _step(self, batch: dict[str, jax.Array], bar: Progress) -> int:
        """Dispatches a step, then reads the metrics of the one before: the device never waits for the host.

        Returns the rows trained on.
        """
        rows = self._rows_until(self.position.step + 1) - self._rows_until(self.position.step)
        length = batch["history"].shape[1]
        compiles = length not in self._compiled
        if compiles:
            self._compiled.add(length)
            self._read_metrics()
            self.stopwatch.lap(0)  # of the step before, which is done only now
            self.stopwatch.stop()
        learning_rate = np.float32(self._learning_rate(self.position.step + 1))
        with bar.pause() if compiles else nullcontext():
            self.state, metrics = self.train_step(self.state, batch, self.items, learning_rate)
        self._read_metrics()
        self.position.step += 1
        self._pending = metrics, rows
        return rows

    def _read_metrics(self) -> None:
        """Waits for the pending step, `position.step`. Raises FailedError if its loss or gradient is not finite."""
        if self._pending is None:
            return
        (metrics, rows), self._pending = self._pending, None
        loss, norm, self._group_norms = float(metrics["loss"]), float(metrics["grad_norm"]), metrics["group_norms"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(f"loss {loss}, gradient norm {norm}")
        self.position.loss_sum += loss * rows
        self.position.row_sum += rows
        before = self.position.smoothed_loss
        self.position.smoothed_loss = loss if before is None else 0.98 * before + 0.02 * loss

    def _diverged(self, what: str) -> FailedError:
        norms = dict(zip(group_names(self.state.params), np.asarray(self._group_norms).tolist(), strict=False))
        largest = sorted(norms, key=lambda name: -norms[name] if math.isfinite(norms[name]) else -math.inf)[:3]
        step = self.position.step
        return FailedError(
            f"Step {step:,} diverged: {what}, learning rate {self._learning_rate(step):g}; the largest "
            f"gradients are those of {', '.join(f'{name} ({norms[name]:.3g})' for name in largest)}; "
            f"{self.checkpoints.kept}. "
            "Begin again in another run directory with a lower train.learning_rate."
        )

    def _learning_rate(self, step: int) -> float:
        """Of the step that is number `step`, from 1."""
        return self.plateau.learning_rate * self.config.train.schedule.factor(step / self.steps_per_epoch)

    def _rows_until(self, step: int) -> int:
        """Rows trained on in the first `step` steps; the last batch of an epoch may be a partial one."""
        epochs, batches = divmod(step, self.steps_per_epoch)
        return epochs * self.data.train.rows + batches * self.config.train.batch_size

    # Between steps

    def _record_training(self) -> None:
        self._read_metrics()
        position = self.position
        if self.recorder:
            self.recorder.add(
                "train",
                position.step,
                epoch=position.step / self.steps_per_epoch,
                loss=position.loss_sum / max(position.row_sum, 1),  # weighted by rows
                learning_rate=self._learning_rate(position.step),
                samples_per_second=self.stopwatch.samples_per_second,
            )
        position.loss_sum, position.row_sum = 0.0, 0

    def _validate(self) -> None:
        train, valid, step = self.config.train, self.data.valid, self.position.step
        with Progress("Validating", valid.rows, "rows") as bar:
            params = self.predicting(self.state)
            logits = self.score(params, self.state.batch_stats, valid, self.items, bar.advance)
        broken = np.count_nonzero(~np.isfinite(logits))
        if broken:
            raise self._diverged(f"{broken:,} of {valid.rows:,} validation logits are not finite")
        result = metrics.evaluate(np.asarray(valid.label), metrics.first(logits), self.data.valid_users)
        result |= metrics.evaluate_others(valid.labels, logits[..., 1:])
        before, rate = self.plateau.learning_rate, self._learning_rate(step)
        improved = self.plateau.update(result[train.monitor], step, train)
        if improved:
            self.best_metrics = result
        self._last_metric = result[train.monitor]
        log.info(
            f"Step {step:,} (epoch {step / self.steps_per_epoch:.2f}): loss {show(self.position.smoothed_loss)}, "
            "validation "
            + ", ".join(f"{name} {show(value)}" for name, value in result.items())
            + (" — best so far" if improved else f"; best {show(self.plateau.best)} at {self.plateau.best_step}")
            + (f"; learning rate now {self.plateau.learning_rate:g}" if self.plateau.learning_rate != before else "")
        )
        if self.recorder:
            self.recorder.add("validation", step, improved=improved, learning_rate=rate, **result)
            self.recorder.draw(at_least_every=_DRAW_SECONDS)
        if self.end_early:
            self.pruned = bool(self.end_early(-(-step // self.validate_every), result["auc"]))  # numpy's, too, are kept

    # Saving and restoring

    def _save(self) -> None:
        if self.checkpoints.last_step == self.position.step:
            return
        self._read_metrics()
        if not all_finite(self.state):
            raise self._diverged("parameters or moments are not finite")
        self.stopwatch.update()
        progress = {
            "position": asdict(self.position) | asdict(self.stopwatch),
            "plateau": asdict(self.plateau),
            "best_metrics": self.best_metrics,
            "pruned": self.pruned,
        }
        parts = self.state.parts(self.predicting(self.state))
        self.checkpoints.save(parts, progress, self.position.step, self.plateau.best_step)

    def _restore(self) -> None:
        restored = self.checkpoints.restore_newest(like=self.state)
        if restored is None:
            return
        self.state, progress = restored
        position = progress["position"]
        self.stopwatch = Stopwatch(**{field.name: position.pop(field.name) for field in fields(Stopwatch)})
        self.position, self.plateau = Position(**position), Plateau.restored(progress["plateau"])
        self.best_metrics = progress["best_metrics"]
        self.pruned = self.end_early is not None and progress.get("pruned", False)  # not in runs of before
        self.checkpoints.warn_without(self.plateau.best_step)
        log.info(
            f"Resuming at step {self.position.step:,}; best validation "
            f"{self._monitored} so far {show(self.plateau.best)}."
        )

    # Reporting

    def _status(self) -> str:
        last, best = show(self._last_metric), show(self.plateau.best)
        return f"loss {show(self.position.smoothed_loss)}  {self._monitored} {last}, best {best}"

    @property
    def _monitored(self) -> str:
        """The metric that decides, as people write it."""
        return {"auc": "AUC", "gauc": "grouped AUC"}.get(self.config.train.monitor, self.config.train.monitor)

    def _summary(self, stopped: StopReason) -> Summary:
        train = self.config.train
        limits = {StopReason.EPOCHS_DONE: train.epochs, StopReason.PATIENCE_EXHAUSTED: train.patience}
        return Summary(
            stopped=stopped,
            limit=limits.get(stopped),
            steps=self.position.step,
            epochs=self.position.step / self.steps_per_epoch,
            best_step=self.plateau.best_step,
            validation=self.best_metrics,
            samples_per_second=self.stopwatch.samples_per_second,
            seconds=self.stopwatch.seconds,
            parameters=count_parameters(self.state.params),
        )


def count_parameters(params: Any) -> int:
    """Numbers in all arrays of a tree."""
    return sum(x.size for x in jax.tree.leaves(params))
