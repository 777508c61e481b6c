"""The configuration: every section and field, typed, frozen and checked when built."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, model_validator

from mmctr_jax.config.differences import Marker
from mmctr_jax.features import Features
from mmctr_jax.models import MODELS
from mmctr_jax.optimization import AnyOptimizer, AnyRowOptimizer, AnySchedule, WeightDecay
from mmctr_jax.optimization.optimizers import Adam
from mmctr_jax.optimization.schedules import OnPlateau
from mmctr_jax.optimization.weight_decay import DecayRate
from mmctr_jax.settings import LARGEST, Name, NonNegative, Positive, Rows, Settings, Width

_FILE = Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON  # it may have moved: what it contains is compared
_SCORED_FILE = _FILE | Marker.FIXED_IN_SEARCH


Precision = Literal["float32", "tf32", "bfloat16"]


class DataConfig(Settings):
    """The files."""

    train: Annotated[Name, _FILE]
    """Parquet file, or folder of part files (read in name order); here, or at s3://, gs:// or hdfs://."""
    valid: Annotated[Name, _SCORED_FILE]
    """Likewise; must have labels of both classes: early stopping needs its AUC."""
    test: Annotated[Name | None, _SCORED_FILE] = None
    """What `mmctr predict` scores when no --data is given. null: --data is required."""
    test_labels: Annotated[Name | None, _SCORED_FILE] = None
    """Labels of the test file's rows, in their order. null: the file has them itself, or has none."""
    item_info: Annotated[Name, _FILE]
    """One row per item: item id and the columns listed under features.item_features."""
    cache_dir: Annotated[Name, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON] = "cache"
    """Where the binary copies of train, valid and item_info go; safe to delete at any time."""

    @property
    def absolute(self) -> DataConfig:
        """With the whole path of each file, which holds wherever a run is scored from; URLs stay as they are."""
        given = {name: value for name, value in self if isinstance(value, str) and "://" not in value}
        return self.model_copy(update={name: os.path.abspath(value) for name, value in given.items()})

    @model_validator(mode="after")
    def _files_go_together(self) -> DataConfig:
        if self.test_labels and not self.test:
            raise ValueError("data.test_labels is given without data.test; name the test file too, or drop the labels")
        if "://" in self.cache_dir:
            raise ValueError("data.cache_dir is a URL; name a folder of this machine")
        return self


class TrainConfig(Settings):
    """How to train."""

    batch_size: Rows = 128
    """Rows per step, over all devices and hosts together."""
    eval_batch_size: Annotated[Rows, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON] = 1024
    """Rows per scoring step; changes memory and speed, not results."""
    length_buckets: tuple[Width, ...] | None = None
    """Lengths besides model.max_history that a batch's histories are padded to, rising; a batch has rows of one length.
    null: those of 1, 2, 3, 4, 6, 8, 12, 16, … that pay, where that is exact. []: none."""
    epochs: Annotated[int, Field(ge=1, le=10**6), Marker.FREE_ON_RESUME] = 100
    """At most; early stopping usually ends sooner."""
    learning_rate: Annotated[float, Field(ge=1e-12, le=LARGEST)] = 5e-4
    """The highest that `schedule` comes to."""
    clip_norm: Positive = 10.0
    """Gradients are scaled down to this global norm."""
    embedding_l2: NonNegative = 0.0
    """λ of λ/2·‖w‖² on the embedding tables, as a part of the loss."""
    net_l2: NonNegative = 0.0
    """λ of λ/2·‖w‖² on all other weight matrices."""
    eval_every: Width | None = None
    """Steps between validations. null: once per epoch."""
    checkpoint_every: Annotated[Width | None, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON] = None
    """Steps between extra checkpoints. null: at validations only."""
    patience: Annotated[Width, Marker.FREE_ON_RESUME] = 5
    """Validations without improvement before training stops."""
    lr_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """With the schedule plateau: what the learning rate is multiplied by on a validation without improvement."""
    min_learning_rate: NonNegative = 1e-6
    """With the schedule plateau: the learning rate does not fall below this."""
    min_delta: NonNegative = 1e-6
    """An improvement is better than the best by more than this."""
    monitor: Literal["auc", "gauc", "logloss"] = "auc"
    """The validation metric that decides which checkpoint is best, when training stops, and when the schedule plateau
    acts. gauc is the mean AUC within a user: for ranking one user's candidates. logloss, where lower is better: for
    probabilities."""
    trackers: Annotated[
        tuple[Literal["tensorboard", "mlflow", "wandb"], ...], Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON
    ] = ("tensorboard",)
    """Where losses and metrics go besides the run directory's own files. tensorboard: events in the run directory;
    mlflow: the server MLFLOW_TRACKING_URI; wandb: Weights & Biases, or with WANDB_MODE=offline its files in the run
    directory. What fails there never stops a training. The latter two need `pip install 'mmctr-jax[trackers]'`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 20242025
    """Of weights, dropout and row order."""
    sharding: Literal["replicated", "fsdp"] = "replicated"
    """fsdp: large parameters, their moments and the item table are split over the devices instead of being on each."""
    precision: Precision = "float32"
    """Of matrix products; weights and loss stay float32."""
    optimizer: AnyOptimizer = Adam()
    """What turns gradients into steps: adam, adamw, adagrad, lamb, lion or sgd. Arguments go beside the name, as in
    `{name: sgd, momentum: 0.9}`; they are optax's, with its defaults."""
    tables: AnyRowOptimizer | None = None
    """An optimiser of the embedding tables alone, which reads and writes the rows of a batch and no others, so that a
    step costs the same however large they are: adam, lazy_adam, rowwise_adagrad or sgd. Arguments go beside the name,
    as in `{optimizer: adam, learning_rate: 1e-3}`. null: `optimizer` steps them too, every row in every step."""
    schedule: AnySchedule = OnPlateau()
    """How the learning rate changes: plateau, constant, warmup or cosine. Arguments go beside the name, as in
    `{name: cosine, warmup_epochs: 0.5}`. `patience` ends the training whatever the schedule."""
    weight_decay: WeightDecay = WeightDecay()
    """Decoupled: what weights lose in each step besides the optimiser's step, as in AdamW."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights (0.999, say), which is then what is validated, what scores
    and what is exported; training continues from the weights themselves. null: none. Running means of batch norm are
    averages already, and stay what they are."""

    @model_validator(mode="after")
    def _schedule_fits(self) -> TrainConfig:
        self.schedule.resolved(self.epochs)
        for name in ("lr_factor", "min_learning_rate"):
            if not self.schedule.falls_on_plateaus and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"train.{name} is for the schedule plateau, and train.schedule is {self.schedule.name}; drop one "
                    "of the two"
                )
        return self

    @model_validator(mode="after")
    def _rows_alone_have_gradients(self) -> TrainConfig:
        if self.tables and self.embedding_l2:
            raise ValueError(
                "train.embedding_l2 is a gradient of every row, and train.tables steps those of a batch alone; use "
                "train.weight_decay.tables"
            )
        return self

    @property
    def resolved(self) -> TrainConfig:
        """With the schedule's null fields filled in: what a run keeps, and compares when it is resumed."""
        return self.model_copy(update={"schedule": self.schedule.resolved(self.epochs)})

    @property
    def decay_rate(self) -> DecayRate:
        """The weight decay of each parameter."""
        return self.weight_decay.rate(self.optimizer.weight_decay)

    @property
    def table_decay(self) -> float:
        """That of embedding tables which `tables` steps."""
        return self.weight_decay.tables or 0.0


def _model_name(raw: Any) -> Any:
    """Without a name the model is the full one."""
    return raw.get("name", "mmctr") if isinstance(raw, dict) else getattr(raw, "name", "mmctr")


AnyModelSettings = Annotated[
    Union[tuple(Annotated[settings, Tag(name)] for name, settings in MODELS.items())],  # noqa: UP007
    Discriminator(_model_name),
]


class Config(Settings):
    """Everything that a config file says."""

    data: DataConfig
    features: Features = Features()
    model: AnyModelSettings = MODELS["mmctr"]()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Config:
        buckets = self.train.length_buckets or ()
        if list(buckets) != sorted(set(buckets)):
            raise ValueError(f"train.length_buckets {list(buckets)} does not rise; sort it, each length once")
        if buckets and buckets[-1] > self.model.max_history:
            raise ValueError(
                f"train.length_buckets has {buckets[-1]}, and model.max_history is {self.model.max_history}; "
                "leave out what is longer"
            )
        if buckets and self.model.sees_padding:
            raise ValueError(
                "train.length_buckets is given, but model.history_mask released attends to padding, of which every "
                "history must have its full share; drop one of the two settings"
            )
        self.model.check(self.features)
        return self

    def with_features(self, features: Features) -> Config:
        """The same with other features, such as resolved ones."""
        return self.model_copy(update={"features": features})
