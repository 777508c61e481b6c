"""The trials of a search, in an Optuna study that stopped, continuing and parallel processes share.

Each trial is an ordinary run directory, OUT/trials/NNNN, with its record beside it. A process holds a lock on the trial
it is at; a trial that is running by the study's word and held by nobody was left by a process that ended, and is taken
over where that one stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import random
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.experiments.seeded_run import difference, digests
from mmctr_jax.experiments.space import Choice, Range, Space, label
from mmctr_jax.files import write_atomically, writing

try:
    import optuna
    import sqlalchemy
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError:  # an optional extra
    raise InputError("mmctr tune needs Optuna for a search; pip install optuna.") from None

_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class Taken:
    """A trial that this process is at. Ours until `release`, or the end of the process."""

    trial: Trial
    values: dict[str, Any]  # of the space's fields
    lock: IO

    @property
    def number(self) -> int:
        return self.trial.number

    def release(self) -> None:
        self.lock.close()


class Study:
    """Which trials there are, and what is to be tried next."""

    def __init__(self, space: Space, out: Path, sampler: str, pruning: bool, seed: int, storage: str | None):
        """Raises: InputError if the folder or the storage cannot be used, or holds another search."""
        self.space, self.out, self.sampler, self.seed = space, out, sampler, seed
        with writing(out, "name another folder with --out"):
            (out / "trials").mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # From the second validation on: the first comes too early to judge a low learning rate by.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        database = sqlalchemy.URL.create("sqlite", database=str(out.resolve() / "study.db"))
        with self.alone():
            try:
                self.optuna = optuna.create_study(
                    study_name=self._name(),
                    storage=storage or database.render_as_string(hide_password=False),
                    direction="maximize",
                    pruner=pruner if pruning else optuna.pruners.NopPruner(),
                    load_if_exists=True,
                )
            except Exception as error:  # of as many kinds as there are storages
                problem = str(error).partition("\n")[0].replace(storage or "\n", "the URL")  # which may hold a password
                raise InputError(
                    f"The study {'of --storage' if storage else out / 'study.db'} cannot be opened ({problem}); mend "
                    "that, or name another place."
                ) from None
            self._check_same()

    def _name(self) -> str:
        """The study's, kept in the folder: folders may be renamed, and share a storage with others of their name."""
        path = self.out / ".study"
        if not path.exists():
            write_atomically(path, f"{self.out.resolve().name}-{secrets.token_hex(4)}")
        return path.read_text()

    def _check_same(self) -> None:
        """Raises: InputError if the study is of another base, space or data."""
        config = parse_config(self.space.settings)
        space = {name: [type(field).__name__, *vars(field).values()] for name, field in self.space.fields.items()}
        now = {"config": config.model_dump(mode="json"), "data": digests(config, {}, with_test=False), "space": space}
        now = json.loads(json.dumps(now))
        begun = self.optuna.user_attrs.get("search")
        if begun is None:
            self.optuna.set_user_attr("search", now)
            return
        found = difference(parse_config(begun["config"]), config, begun["data"], now["data"])
        if found is None and begun["space"] != now["space"]:
            names = {**begun["space"], **now["space"]}
            name = next((n for n in names if begun["space"].get(n) != now["space"].get(n)), None)
            found = f"{name} of the space"
        if found:
            raise InputError(
                f"{self.out} has a search that was begun otherwise ({found}, there ≠ now); name another folder with "
                "--out, or go on with what it was begun with."
            )

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Processes of one search choose their trials, and write its tables, one after the other."""
        with writing(self.out, "name another folder with --out"), open(self.out / ".lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def reached(self) -> Iterator[None]:
        """A storage that fails in here becomes a TrainingError."""
        try:
            yield
        except optuna.exceptions.StorageInternalError as error:
            raise TrainingError(
                f"The study of {self.out} cannot be read or written ({error.__cause__ or error}); mend that, then go "
                "on with the same command."
            ) from None

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.optuna.get_trials(deepcopy=False)

    @property
    def done(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state in _DONE]

    @property
    def best(self) -> FrozenTrial | None:
        """Of the complete trials, the one of the best validation AUC; of equals the first."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """What a trial has the fields set to; fewer than all where its process ended while choosing them."""
        return {
            name: _decoded(field, trial.params[name])
            for name, field in self.space.fields.items()
            if name in trial.params
        }

    # What comes next

    def take(self, most: int) -> Taken | None:
        """The next trial: one that was left unfinished, or a new one while there are fewer than `most` in all."""
        with self.alone():
            for left in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                lock = self._claim(left.number)
                if lock and self.frozen(left.number).state == TrialState.RUNNING:  # not ended since it was listed
                    return self._taken(Trial(self.optuna, left._trial_id), lock)
            begun = [trial for trial in self.trials if trial.state != TrialState.WAITING]
            if len(begun) >= most:
                return None
            if self.sampler == "grid":
                combination = self._next_of_grid(begun)
                if combination is None:
                    return None
                self.optuna.enqueue_trial(combination, skip_if_exists=True)
            self.optuna.sampler = self._sampler(self.seed + len(begun))
            trial = self.optuna.ask()
            return self._taken(trial, self._claim(trial.number))

    def _claim(self, number: int) -> IO | None:
        handle = open(self.out / "trials" / f".{number:04d}.lock", "w")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            handle.close()
            return None

    def _taken(self, trial: Trial, lock: IO) -> Taken:
        for name, field in self.space.fields.items():
            if isinstance(field, Choice):
                trial.suggest_categorical(name, _choices(field))
            elif field.whole:
                trial.suggest_int(name, field.low, field.high, log=field.log)
            else:
                trial.suggest_float(name, field.low, field.high, log=field.log)
        return Taken(trial, self.values(self.frozen(trial.number)), lock)

    def frozen(self, number: int) -> FrozenTrial:
        return self.optuna.trials[number]

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Seeded anew for each trial: what is tried depends on the trials before, not on who asks."""
        if self.sampler != "tpe":
            return optuna.samplers.RandomSampler(seed=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # constant_liar: keeps away from what other processes are trying now.
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _next_of_grid(self, begun: list[FrozenTrial]) -> dict[str, Any] | None:
        """The first combination, in an order that the seed decides, that was not begun yet."""
        choices = {name: _choices(field) for name, field in self.space.fields.items()}
        combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
        random.Random(self.seed).shuffle(combinations)
        tried = {tuple(trial.params.get(name) for name in choices) for trial in begun}
        return next((c for c in combinations if tuple(c.values()) not in tried), None)

    # What came out

    def same_before(self, taken: Taken) -> FrozenTrial | None:
        """An earlier trial of the same values that is done."""
        earlier = (trial for trial in self.trials[: taken.number] if trial.state in _DONE)
        return next((trial for trial in earlier if self.values(trial) == taken.values), None)

    def report(self, taken: Taken, evaluation: int, auc: float) -> bool:
        """Takes a validation AUC; returns whether the trial is not worth going on with."""
        if evaluation not in self.frozen(taken.number).intermediate_values:  # known where a run was resumed
            taken.trial.report(auc, evaluation)
        return taken.trial.should_prune()

    def tell(self, taken: Taken, result: dict[str, Any], same_as: int | None = None) -> None:
        """Writes down how a trial ended: `compare.run.Run`'s result."""
        taken.trial.set_user_attr("result", result)
        if same_as is not None:
            taken.trial.set_user_attr("same_as", same_as)
        if "failed" in result:
            self.optuna.tell(taken.trial, state=TrialState.FAIL)
        elif result["stopped"] == "pruned":
            self.optuna.tell(taken.trial, state=TrialState.PRUNED)
        else:
            self.optuna.tell(taken.trial, result["validation"]["auc"])

    def importances(self) -> dict[str, float]:
        """How much of the AUC's variation each field explains (PED-ANOVA), summing to 1; empty while unknown."""
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # that trials are too few to tell
            try:
                return optuna.importance.get_param_importances(self.optuna)
            except (RuntimeError, ValueError, UserWarning):
                return {}


def _choices(field: Choice | Range) -> list[Any]:
    """As Optuna can store them: numbers, or words, or else the values as text."""
    values = field.values
    for kind in (bool, str, (int, float)):
        if all(isinstance(value, kind) and (kind is bool or not isinstance(value, bool)) for value in values):
            return list(values)
    return [label(value) for value in values]


def _decoded(field: Choice | Range, stored: Any) -> Any:
    if isinstance(field, Range):
        return stored
    return field.values[_choices(field).index(stored)]
