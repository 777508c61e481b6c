"""The trials of a search, in an Optuna study that stopped, continued and parallel processes share.

Each trial is an ordinary run directory, OUT/trials/NNNN, with its record beside it. A process locks the trial that it
trains, and the system lets go of the lock when the process ends, however it ends. So a trial that the study calls
running and that nobody has locked was left behind, and is continued by the next process that looks for work.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmctr_jax.config import parse_config
from mmctr_jax.errors import InputError, TrainingError
from mmctr_jax.experiments.seeded_run import difference, digests
from mmctr_jax.experiments.space import Choice, Range, Space, label
from mmctr_jax.files import write_atomically, writing

try:
    import optuna
    import sqlalchemy
    from filelock import FileLock, Timeout
    from optuna.trial import FrozenTrial, Trial, TrialState
except ImportError as error:  # an optional extra
    raise InputError(f"mmctr tune needs {error.name} for a search: pip install optuna filelock.") from None

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclass
class ClaimedTrial:
    """A trial that this process trains. No other process takes it before `release`, or the end of this one."""

    trial: Trial
    values: dict[str, Any]  # by field of the space
    lock: FileLock

    @property
    def number(self) -> int:
        """The trial's number in the study, from 0."""
        return self.trial.number

    def release(self) -> None:
        """Lets others take the trial, if it is still unfinished."""
        self.lock.release()


class Study:
    """Which trials there are, and what is to be tried next."""

    def __init__(self, space: Space, out: Path, sampler: str, pruning: bool, seed: int, storage: str | None):
        """Opens the study of `out`, or begins one; the arguments are those of `search.search`.

        Raises: InputError if the folder or the storage cannot be used, or has another search.
        """
        self.space, self.out, self.sampler, self.seed = space, out, sampler, seed
        with writing(out, "name another folder with --out"):
            (out / "trials").mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        # From the second validation on: the first comes too early to judge a low learning rate by.
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2)
        database = sqlalchemy.URL.create("sqlite", database=str(out.resolve() / "study.db"))
        with self.exclusive():
            try:
                self.optuna = optuna.create_study(
                    study_name=self._name(),
                    storage=storage or database.render_as_string(hide_password=False),
                    direction="maximize",
                    pruner=pruner if pruning else optuna.pruners.NopPruner(),
                    load_if_exists=True,
                )
            except Exception as error:  # of as many kinds as there are storages
                problem = str(error.__cause__ or error).partition("\n")[0]
                problem = problem.replace(storage or "\n", "the URL")  # which may hold a password
                raise InputError(
                    f"The study {'of --storage' if storage else out / 'study.db'} cannot be opened ({problem}); "
                    "correct that, or name another place."
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
                f"{self.out} has a search with other settings ({found}, there ≠ now); name another folder with --out, "
                "or use the settings that it was begun with."
            )

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Within it, no other process of the search chooses a trial or writes the results. Waits for its turn."""
        with writing(self.out, "name another folder with --out"), _lock(self.out / ".lock"):
            yield

    @contextlib.contextmanager
    def storage_errors(self) -> Iterator[None]:
        """Within it, a storage that fails becomes a TrainingError."""
        try:
            yield
        except optuna.exceptions.StorageInternalError as error:
            raise TrainingError(
                f"The study of {self.out} cannot be read or written ({error.__cause__ or error}); correct that, then "
                "continue with the same command."
            ) from None

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, by number, as the storage has them now."""
        return self.optuna.get_trials(deepcopy=False)

    @property
    def finished(self) -> list[FrozenTrial]:
        """The trials that are complete, pruned or failed."""
        return [trial for trial in self.trials if trial.state in _FINISHED]

    @property
    def best(self) -> FrozenTrial | None:
        """The complete trial with the best validation AUC, the first of equals; None where none is complete."""
        complete = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)

    def values(self, trial: FrozenTrial) -> dict[str, Any]:
        """A trial's value of each field; fewer than all where its process ended while choosing them."""
        return {
            name: _decoded(field, trial.params[name])
            for name, field in self.space.fields.items()
            if name in trial.params
        }

    # What is tried next

    def claim(self, most: int) -> ClaimedTrial | None:
        """A trial that was left unfinished, or a new one while there are fewer than `most` in all; else None."""
        with self.exclusive():
            for left in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                lock = _lock(self._lock_file(left.number), blocking=False)
                with contextlib.suppress(Timeout):
                    lock.acquire()
                    if self._frozen(left.number).state == TrialState.RUNNING:  # not finished since it was listed
                        return self._claimed(Trial(self.optuna, left._trial_id), lock)
                    lock.release()
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
            lock = _lock(self._lock_file(trial.number))
            lock.acquire()
            return self._claimed(trial, lock)

    def _lock_file(self, number: int) -> Path:
        return self.out / "trials" / f".{number:04d}.lock"

    def _claimed(self, trial: Trial, lock: FileLock) -> ClaimedTrial:
        for name, field in self.space.fields.items():
            if isinstance(field, Choice):
                trial.suggest_categorical(name, _choices(field))
            elif field.whole:
                trial.suggest_int(name, field.low, field.high, log=field.log)
            else:
                trial.suggest_float(name, field.low, field.high, log=field.log)
        return ClaimedTrial(trial, self.values(self._frozen(trial.number)), lock)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.optuna.trials[number]

    def _sampler(self, seed: int) -> optuna.samplers.BaseSampler:
        """Seeded anew for each trial: what is tried depends on the trials before, not on which process asks."""
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

    # How trials end

    def earlier_with_same_values(self, claimed: ClaimedTrial) -> FrozenTrial | None:
        """An earlier, finished trial of the same values, which need not be trained again."""
        earlier = (trial for trial in self.trials[: claimed.number] if trial.state in _FINISHED)
        return next((trial for trial in earlier if self.values(trial) == claimed.values), None)

    def report(self, claimed: ClaimedTrial, evaluation: int, auc: float) -> bool:
        """Records the AUC of a trial's n-th validation (from 1); returns whether the trial is to be ended early."""
        if evaluation not in self._frozen(claimed.number).intermediate_values:  # it is where a run was resumed
            claimed.trial.report(auc, evaluation)
        return claimed.trial.should_prune()

    def tell(self, claimed: ClaimedTrial, result: dict[str, Any], same_as: int | None = None) -> None:
        """Records how a trial ended.

        Args:
          result: as `seeded_run.Run` gives it.
          same_as: the trial whose result this is, where it was not trained again.
        """
        claimed.trial.set_user_attr("result", result)
        if same_as is not None:
            claimed.trial.set_user_attr("same_as", same_as)
        if "failed" in result:
            self.optuna.tell(claimed.trial, state=TrialState.FAIL)
        elif result["stopped"] == "pruned":
            self.optuna.tell(claimed.trial, state=TrialState.PRUNED)
        else:
            self.optuna.tell(claimed.trial, result["validation"]["auc"])

    def importances(self) -> dict[str, float]:
        """The share of the AUC's variation that each field explains (PED-ANOVA); empty with too few trials to tell.

        Source: Watanabe, Bansal & Hutter, PED-ANOVA (IJCAI 2023), as Optuna has it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # that trials are too few
            try:
                return optuna.importance.get_param_importances(self.optuna)
            except (RuntimeError, ValueError, UserWarning):
                return {}


def _lock(path: Path, blocking: bool = True) -> FileLock:
    """A lock of the kernel's, which ends with its process; never the substitute that a kill would leave behind."""
    return FileLock(path, blocking=blocking, fallback_to_soft=False)


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
