"""The configuration: typed, frozen, checked when built. No value is ever silently ignored.

`load_config(path, overrides)` is the way in; `to_yaml(config)` writes the resolved configuration back. Every field
below carries its unit, its constraint and what null means; `configs/*.yaml` need to state only what differs.
"""

from __future__ import annotations

import datetime
import difflib
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from mmctr_jax.config.differences import Marker
from mmctr_jax.errors import InputError
from mmctr_jax.optimization import AnyOptimizer, AnySchedule, WeightDecay
from mmctr_jax.optimization.optimizers import Adam
from mmctr_jax.optimization.schedules import OnPlateau
from mmctr_jax.optimization.weight_decay import DecayRate

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Width = Annotated[int, Field(ge=1, le=2**31 - 1)]
Rows = Annotated[int, Field(ge=1, le=2**20)]
NonNegative = Annotated[float, Field(ge=0.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Depth = Annotated[int, Field(ge=0, le=1000)]
Name = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]  # no system has a path with a zero in it


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataConfig(_Section):
    # Of a file that may be moved, what it contains is compared instead of its path.
    # Parquet file, or folder of part files (read in name order)
    train: Annotated[Name, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON]
    # likewise; must have labels of both classes: early stopping needs its AUC
    valid: Annotated[Name, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON | Marker.FIXED_IN_SEARCH]
    # scored by predict.py when no --data is given; null: --data is required
    test: Annotated[Name | None, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON | Marker.FIXED_IN_SEARCH] = None
    # labels of the test file's rows, in their order; null: it has them, or has none
    test_labels: Annotated[Name | None, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON | Marker.FIXED_IN_SEARCH] = (
        None
    )
    # one row per item: item id and the columns listed under features.item_features
    item_info: Annotated[Name, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON]
    # where the binary copies of train and valid go; safe to delete at any time
    cache_dir: Annotated[Name, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON] = "cache"

    @model_validator(mode="after")
    def _labels_are_of_something(self) -> DataConfig:
        if self.test_labels and not self.test:
            raise ValueError("data.test_labels is given without data.test; name the test file too, or drop the labels")
        return self


class SideFeature(_Section):
    """A categorical column of the sample rows (e.g. an age group). Id 0 is padding: a zero vector that never learns."""

    name: Name  # column
    vocab_size: Width  # ids run from 0 to vocab_size - 1


class CategoricalFeature(_Section):
    """An integer column of item_info, embedded. Id 0 is padding."""

    kind: Literal["categorical"]
    name: Name
    vocab_size: Width | None = None  # null: the largest id in item_info, plus one


class TagsFeature(_Section):
    """A list column of item_info: the mean of its non-padding ids' embeddings; the zero vector without any."""

    kind: Literal["tags"]
    name: Name
    vocab_size: Width | None = None  # null: the largest id in item_info, plus one


class EmbeddingFeature(_Section):
    """A list-of-floats column of item_info: a frozen vector, e.g. of the item's text and picture."""

    kind: Literal["embedding"]
    name: Name
    dim: Width  # length of every vector


class CodesFeature(_Section):
    """Semantic codes: a frozen vector as the nearest of `size` k-means centroids, and so on for what each level leaves.

    One level is vector quantisation, more are residual quantisation. The codes' embeddings learn, and are summed over
    the levels, as the centroids are. Beside an embedding feature of the same column they join it; alone, replace it.
    """

    kind: Literal["codes"]
    name: Name  # of the feature; no column
    source: Name  # list-of-floats column of item_info; a zero vector has no codes
    dim: Width  # length of every vector
    levels: Annotated[int, Field(ge=1, le=16)] = 3
    size: Annotated[int, Field(ge=2, le=2**20)] = 256  # codes per level

    @property
    def vocab_size(self) -> int:
        """Ids of all levels in one table: level l has 1 + l·size … (l + 1)·size, 0 is none."""
        return 1 + self.levels * self.size


class NeighboursFeature(_Section):
    """The items whose frozen vectors are nearest by cosine, as item ids: the mean of their id embeddings."""

    kind: Literal["neighbours"]
    name: Name  # of the feature; no column
    source: Name  # list-of-floats column of item_info; a zero vector has no neighbours and is nobody's
    dim: Width  # length of every vector
    top_k: Annotated[int, Field(ge=1, le=1000)] = 5


ItemFeature = Annotated[
    CategoricalFeature | TagsFeature | EmbeddingFeature | CodesFeature | NeighboursFeature, Field(discriminator="kind")
]


class FeaturesConfig(_Section):
    """Column names and vocabularies. The defaults are the challenge's. Order here is order in the model."""

    history: Name = "item_seq"  # list of clicked item ids, oldest first; zeros are padding wherever they stand
    item: Name = "item_id"  # target item; also the key column of item_info
    label: Name = "label"  # 1 clicked, 0 not
    weight: Name | None = None  # column: what a training row counts in its batch's mean loss, above 0; null: 1
    user: Name = "user_id"  # never a model input; groups the rows for grouped AUC
    id_columns: tuple[Name, ...] = ("ID", "user_id", "item_id")  # those present pass through to the predictions
    num_items: Width | None = None  # items, padding item 0 included; null: as many as item_info has
    side: tuple[SideFeature, ...] = (
        SideFeature(name="likes_level", vocab_size=11),
        SideFeature(name="views_level", vocab_size=11),
    )
    item_features: tuple[ItemFeature, ...] = (
        TagsFeature(kind="tags", name="item_tags"),
        EmbeddingFeature(kind="embedding", name="item_emb_d128", dim=128),
    )

    @model_validator(mode="after")
    def _names_are_distinct(self) -> FeaturesConfig:
        for where, names in (
            ("features.side", [f.name for f in self.side]),
            ("features.item_features", [f.name for f in self.item_features]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"{where} lists {name!r} twice; list it once")
        if "score" in self.id_columns:
            raise ValueError("features.id_columns lists 'score', the name of the predictions' own column; rename it")
        if self.weight in (self.history, self.item, self.label):
            raise ValueError(f"features.weight is {self.weight!r}, the history, item or label; name another column")
        for name in [f.name for f in self.side + self.item_features]:
            if name in (self.history, self.item, self.label, self.weight):
                raise ValueError(
                    f"column {name!r} is listed as a feature and is the history, item, label or weight; rename it"
                )
        dims: dict[str, int] = {}
        lists = [f.name for f in self.item_features if f.kind in ("tags", "categorical")]
        for f in self.item_features:
            if f.kind in ("codes", "neighbours") and f.source in lists:
                raise ValueError(
                    f"feature {f.name!r} has the source {f.source!r}, a column of ids; name one of vectors"
                )
            column = {"codes": "source", "neighbours": "source", "embedding": "name"}.get(f.kind)
            if column and dims.setdefault(getattr(f, column), f.dim) != f.dim:
                raise ValueError(
                    f"features.item_features give column {getattr(f, column)!r} the dims "
                    f"{dims[getattr(f, column)]} and {f.dim}; it has one"
                )
        for f in self.side:
            if f.name in [g.name for g in self.item_features]:
                raise ValueError(f"{f.name!r} is both a side and an item feature; rename one of the two columns")
        return self


class TransformerConfig(_Section):
    layers: Depth = 2
    heads: Width = 1  # must divide the Transformer's width (twice the item width)
    feedforward: Width = 256
    dropout: Rate = 0.2  # on attention weights, attention output, inside the feed-forward and on its output
    first_k: Count = 16  # K: how many of the last outputs are kept; 0: the pooled one only
    max_pool: bool = True  # append the max-pooled, projected output
    similarity: bool = False  # cosine of each click's and the target's frozen vectors joins the input
    target_attention: Annotated[int, Field(ge=0, le=4)] = 0  # layers with the target as query and the clicks as keys

    @model_validator(mode="after")
    def _history_reaches_the_model(self) -> TransformerConfig:
        if self.first_k == 0 and not self.max_pool and not self.target_attention:
            raise ValueError(
                "model.transformer.first_k 0 without max_pool drops the history; raise first_k, or set max_pool to true"
            )
        if self.first_k == 0 and not self.max_pool and (self.layers or self.similarity):
            raise ValueError(
                "model.transformer.first_k 0 without max_pool leaves the encoder's outputs unread; "
                "set layers to 0 and similarity to false, or keep some outputs"
            )
        return self


class DCNConfig(_Section):
    cross_layers: Depth = 3
    cross_dropout: Rate = 0.0  # after each cross layer's linear map; the paper's Table 1 has 0.2, the release none
    deep: tuple[Width, ...] = (1024, 512, 256)  # widths of the parallel deep layers
    deep_dropout: Rate = 0.2
    batch_norm: bool = False  # in the deep layers, before the ReLU
    similarity_bins: Annotated[int, Field(ge=0, le=1000)] = 0  # of the histogram of clicks' cosines; 0: none


class _Model(_Section):
    name: str
    embedding_dim: Width = 64  # width of every learned embedding
    max_history: Width = 64  # N: the most recent N clicks count, older ones are dropped
    project_mm: bool = True  # learned bias-free square map on each frozen vector (released); false: as it is (paper)
    embedding_init_std: Positive = 1e-4
    # Share of target and history ids whose id embedding is left out (that of padding) in a training step: teaches the
    # model to score new items by what else is known of them.
    id_dropout: Rate = 0.0


class MMCTRConfig(_Model):
    """The full model: Transformer and DCNv2."""

    name: Literal["mmctr"] = "mmctr"
    history_mask: Literal["valid", "released"] = "valid"  # see README, "The padding mask"
    transformer: TransformerConfig = TransformerConfig()
    dcn: DCNConfig = DCNConfig()
    head: tuple[Width, ...] = (64, 32)  # widths of the prediction MLP before its last, single output


class WithoutTransformerConfig(_Model):
    """Ablation: the mean of the clicked items in the Transformer's place."""

    name: Literal["without_transformer"]
    dcn: DCNConfig = DCNConfig()
    head: tuple[Width, ...] = (64, 32)


class WithoutDCNConfig(_Model):
    """Ablation: the prediction MLP straight on the Transformer's outputs, target and side features."""

    name: Literal["without_dcn"]
    history_mask: Literal["valid", "released"] = "valid"
    transformer: TransformerConfig = TransformerConfig()
    head: tuple[Width, ...] = (64, 32)


class DINConfig(_Model):
    """Baseline: Deep Interest Network (Zhou et al. 2018). The paper trains it with learning rate 1e-3."""

    name: Literal["din"]
    attention: tuple[Width, ...] = (512, 256)  # widths of the MLP that weighs each click
    deep: tuple[Width, ...] = (1024, 512, 256)
    activation: Literal["relu", "dice"] = "relu"  # in both
    dropout: Rate = 0.0  # in the deep layers
    batch_norm: bool = True  # in the deep layers, before the activation


_MODELS = {
    "mmctr": MMCTRConfig,
    "without_transformer": WithoutTransformerConfig,
    "without_dcn": WithoutDCNConfig,
    "din": DINConfig,
}


def _model_name(raw: Any) -> Any:
    """Without a name the model is the full one."""
    return raw.get("name", "mmctr") if isinstance(raw, dict) else getattr(raw, "name", "mmctr")


ModelConfig = Annotated[
    Annotated[MMCTRConfig, Tag("mmctr")]
    | Annotated[WithoutTransformerConfig, Tag("without_transformer")]
    | Annotated[WithoutDCNConfig, Tag("without_dcn")]
    | Annotated[DINConfig, Tag("din")],
    Discriminator(_model_name),
]


class TrainConfig(_Section):
    batch_size: Rows = 128  # rows per step over all devices and hosts together
    # rows per scoring step; changes memory and speed, not results
    eval_batch_size: Annotated[Rows, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON] = 1024
    # Lengths besides model.max_history that a batch's histories are padded to, rising; a batch has rows of one length.
    # null: those of 1, 2, 3, 4, 6, 8, 12, 16, … that pay, where that is exact; []: none. See docs/performance.md.
    length_buckets: tuple[Width, ...] | None = None
    # at most; early stopping usually ends sooner
    epochs: Annotated[int, Field(ge=1, le=10**6), Marker.FREE_ON_RESUME] = 100
    learning_rate: Annotated[float, Field(ge=1e-12)] = 5e-4
    clip_norm: Positive = 10.0  # global norm of all gradients
    embedding_l2: NonNegative = 0.0  # λ of λ/2·‖w‖² on the embedding tables
    net_l2: NonNegative = 0.0  # λ of λ/2·‖w‖² on all other weight matrices
    eval_every: Width | None = None  # steps between validations; null: once per epoch
    # steps between extra checkpoints; null: at validations only
    checkpoint_every: Annotated[Width | None, Marker.FREE_ON_RESUME | Marker.FREE_IN_COMPARISON] = None
    patience: Annotated[Width, Marker.FREE_ON_RESUME] = 5  # validations without improvement before training stops
    lr_factor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1  # on a validation without improvement
    min_learning_rate: NonNegative = 1e-6
    min_delta: NonNegative = 1e-6  # an improvement is an AUC above best + min_delta
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 20242025  # of weights, dropout and row order
    # fsdp: large parameters, their moments and the item table are split over the devices instead of being on each.
    sharding: Literal["replicated", "fsdp"] = "replicated"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"  # of matrix products; weights and loss stay float32
    optimizer: AnyOptimizer = Adam()
    """What turns gradients into steps: adam, adamw, adagrad, lamb, lion or sgd. Arguments go beside the name, as in
    `{name: sgd, momentum: 0.9}`; they are optax's, with its defaults."""
    schedule: AnySchedule = OnPlateau()
    """How the learning rate changes: plateau, constant, warmup or cosine. Arguments go beside the name, as in
    `{name: cosine, warmup_epochs: 0.5}`. `patience` ends the training whatever the schedule."""
    weight_decay: WeightDecay = WeightDecay()
    """Decoupled: what weights lose in each step besides the optimizer's step, as in AdamW."""
    ema: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay of an exponential moving average of the weights (0.999, say), which is then what is validated, what scores
    and what is exported; training goes on from the weights themselves. null: none. Running means of batch norm are
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

    @property
    def resolved(self) -> TrainConfig:
        """With the schedule's null fields filled in: what a run keeps, and compares when it is resumed."""
        return self.model_copy(update={"schedule": self.schedule.resolved(self.epochs)})

    @property
    def decay_rate(self) -> DecayRate:
        """The weight decay of each parameter."""
        return self.weight_decay.rate(self.optimizer.weight_decay)


def default_lengths(longest: int) -> tuple[int, ...]:
    """1, 2, 3, 4, 6, 8, 12, 16, … below `longest`, and it: what a batch's histories may be padded to."""
    steps = sorted({n << i for n in (1, 3) for i in range(longest.bit_length())})
    return (*(length for length in steps if length < longest), longest)


_ROWS_OF = 512  # any 2ⁿ ≤ 512 devices divide it


class Config(_Section):
    data: DataConfig
    features: FeaturesConfig = FeaturesConfig()
    model: ModelConfig = MMCTRConfig()
    train: TrainConfig = TrainConfig()

    @property
    def item_width(self) -> int:
        """D: width of one item's vector, id embedding and item features together (Eq. 3)."""
        widths = [f.dim if f.kind == "embedding" else self.model.embedding_dim for f in self.features.item_features]
        return self.model.embedding_dim + sum(widths)

    def table_rows(self, size: int) -> int:
        """Rows of a table of `size` ids: with fsdp a large one is filled up, so that devices have equal parts of it."""
        large = self.train.sharding == "fsdp" and size > 8 * _ROWS_OF
        return -(-size // _ROWS_OF) * _ROWS_OF if large else size

    @property
    def table_sizes(self) -> dict[str, int]:
        """Ids of each learned embedding table, padding included; `num_items` and vocabularies must not be null."""
        sizes = {side.name: side.vocab_size for side in self.features.side}
        sizes[self.features.item] = self.features.num_items
        learned = ("categorical", "tags", "codes")
        return sizes | {f.name: f.vocab_size for f in self.features.item_features if f.kind in learned}

    @property
    def _padding_counts(self) -> bool:
        """Whether the model sees how much padding a history has: as released, it attends to padding."""
        return getattr(self.model, "history_mask", None) == "released"

    @property
    def scoring_lengths(self) -> tuple[int, ...]:
        """The lengths that histories may be padded to where nothing is learned, rising; the last is N."""
        N, buckets = self.model.max_history, self.train.length_buckets
        if self._padding_counts:
            return (N,)
        if buckets is None:
            return default_lengths(N)
        return (*(length for length in buckets if length < N), N)

    @property
    def training_lengths(self) -> tuple[int, ...]:
        """The same for training (`loader.training_lengths` chooses among the default ones).

        With batch norm, unless told, N alone: its means are to be those of all lengths."""
        dcn = getattr(self.model, "dcn", None)
        norm = getattr(self.model, "batch_norm", False) or (dcn and dcn.batch_norm)
        norm = norm or getattr(self.model, "activation", None) == "dice"
        alone = norm and self.train.length_buckets is None
        return (self.model.max_history,) if alone else self.scoring_lengths

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
        if buckets and self._padding_counts:
            raise ValueError(
                "train.length_buckets is given, but model.history_mask released attends to padding, of which every "
                "history must have its full share; drop one of the two settings"
            )
        transformer, dcn = getattr(self.model, "transformer", None), getattr(self.model, "dcn", None)
        if transformer:
            width, heads = self.item_width, transformer.heads
            if 2 * width % heads:
                raise ValueError(f"model.transformer.heads {heads} does not divide the Transformer's width {2 * width}")
            if transformer.target_attention and width % heads:
                raise ValueError(
                    f"model.transformer.heads {heads} does not divide the item width {width}, target_attention's own"
                )
        similarities = {
            "model.transformer.similarity": transformer and transformer.similarity,
            "model.dcn.similarity_bins": dcn and dcn.similarity_bins,
        }
        if not any(f.kind == "embedding" for f in self.features.item_features):
            for key, wanted in similarities.items():
                if wanted:
                    raise ValueError(
                        f"{key} compares frozen vectors and features.item_features has none of kind embedding; "
                        "add one, or drop the setting"
                    )
        return self


# Reading -------------------------------------------------------------------------------------------------------------


_LONGEST_YAML = 2**18  # characters: far more than a config of a thousand features, and read in seconds


def _written_out(node: yaml.Node, lengths: dict[int, int]) -> int:
    """Length of a YAML node with every alias (`*name`) written out, infinite if it holds itself: a few lines can stand
    for more than any memory."""
    if id(node) not in lengths:
        lengths[id(node)] = _LONGEST_YAML + 1  # until it is known
        if isinstance(node, yaml.ScalarNode):
            lengths[id(node)] = 1 + len(node.value.encode())
        else:
            children = node.value if isinstance(node, yaml.SequenceNode) else [n for pair in node.value for n in pair]
            lengths[id(node)] = 1 + sum(_written_out(child, lengths) for child in children)
    return lengths[id(node)]


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, and what is endless."""

    def get_single_node(self):
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > _LONGEST_YAML:
            raise yaml.constructor.ConstructorError(None, None, "with its aliases written out it is too long")
        return node

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if isinstance(key, (str, int, float)):
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
        return super().construct_mapping(node, deep)


def _plain_numbers(loader: type[yaml.SafeLoader] | type[yaml.SafeDumper]) -> None:
    """Numbers as everyone writes them: `5e-4` is one (YAML 1.1: `5.0e-4`), `012` and `1:30` are not (10 and 90)."""
    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in numbers]
        for first, resolvers in loader.yaml_implicit_resolvers.items()
    }
    integer, point = (
        r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)",
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?",
    )
    special = r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    loader.add_implicit_resolver(numbers[0], re.compile(rf"^({integer})$"), list("-+0123456789"))
    loader.add_implicit_resolver(numbers[1], re.compile(rf"^({point}|{special})$"), list("-+.0123456789"))


_plain_numbers(_Loader)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that puts in quotes what `_Loader` would take for a number."""


_plain_numbers(_Dumper)


def _parse_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds plain data only
    except Exception as error:  # of many kinds, where a tag does not suit its value
        mark = getattr(error, "problem_mark", None)
        at = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise InputError(f"{where}{at}: not valid YAML: {problem}.") from None


def set_field(raw: dict, key: str, value: Any, where: str) -> None:
    """Puts a value at a dotted key of plain settings, making the sections that are missing.

    Raises: InputError, opening with `where`, if the key leads through something that is not a section.
    """
    *sections, last = key.split(".")
    for i, section in enumerate(sections):
        if raw.get(section) is None:
            raw[section] = {}
        raw = raw[section]
        if not isinstance(raw, dict):
            raise InputError(f"{where}: {'.'.join(sections[: i + 1])} is not a section; override it as a whole.")
    raw[last] = value


def _apply_override(raw: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise InputError(f"Override {override!r} is not of the form section.key=value, e.g. train.batch_size=256.")
    set_field(raw, key, _parse_yaml(text, f"override {key}"), f"Override {key}")


_ITEM_FEATURES = {
    "categorical": CategoricalFeature,
    "tags": TagsFeature,
    "embedding": EmbeddingFeature,
    "codes": CodesFeature,
    "neighbours": NeighboursFeature,
}


def _walk(location: tuple) -> tuple[list, list[str]]:
    """A pydantic error's location as our keys, and the names known in the section that holds the last of them."""
    keys: list = []
    section: Any = Config
    known: list[str] = []
    for part in location:
        members = _MODELS if keys == ["model"] else _ITEM_FEATURES if keys[1:2] == ["item_features"] else {}
        if section is None and part in members:
            section = members[part]  # pydantic names the union's chosen member here; it is no key
            continue
        keys.append(part)
        if isinstance(part, int):
            section = SideFeature if keys[1] == "side" else None
            continue
        known = list(section.model_fields) if section else ["kind", "name"]
        field = section.model_fields.get(part) if section else None
        section = field.annotation if field and isinstance(field.annotation, type) else section
        if keys == ["model"]:
            section = None
    return keys, known


def _explain(error: ValidationError) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a typo explains a missing key better
    if first["type"] == "json_invalid":  # e.g. sections hundreds deep
        return f"cannot be read as plain settings ({first['ctx']['error']})."
    keys, known = _walk(first["loc"])
    key = ".".join(str(k) for k in keys)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(keys[-1]), known, n=1, cutoff=0.5)
        hint = (
            f"did you mean {'.'.join(map(str, [*keys[:-1], near[0]]))}?" if near else f"known are {', '.join(known)}."
        )
        return f"{key} is not a known key; {hint}"
    if first["type"] == "union_tag_invalid":
        tag = {"model": "name"}.get(key, "kind")
        return f"{key}.{tag} {first['ctx']['tag']!r} is not known; known are {first['ctx']['expected_tags']}."
    if first["type"] in ("union_tag_not_found", "missing"):
        if first["type"] == "union_tag_not_found":
            key += {"model": ".name"}.get(key, ".kind")
        return f"{key} is missing; give it a value."
    if first["type"] == "value_error":  # raised by the checks above, which name their keys
        return f"{first['msg'].removeprefix('Value error, ')}."
    message = first["msg"][0].lower() + first["msg"][1:]
    value = json.dumps(first["input"], default=str)
    return f"{key}: {message}, not {value if len(value) <= 60 else value[:57] + '...'}."


def _as_text(value: Any) -> str:
    if isinstance(value, datetime.date):  # 2020-01-01 without quotes
        return str(value)
    raise TypeError(f"{type(value).__name__} value")


def parse_config(raw: Any, where: str = "config") -> Config:
    """A checked `Config` from plain data (what YAML gives). `where` opens the error message.

    Raises: InputError naming the first offending key.
    """
    if not isinstance(raw, dict):
        raise InputError(f"{where}: not a mapping of sections (data, features, model, train).")
    try:  # Through JSON, where strict typing still takes a list for a tuple and 1 for 1.0, but never "1" for 1.
        return Config.model_validate_json(json.dumps(raw, default=_as_text))
    except ValidationError as error:
        raise InputError(f"{where}: {_explain(error)}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: cannot be read as plain settings ({error}).") from None


def read_yaml(path: Path, what: str) -> Any:
    """A YAML file's plain data. `what`, such as "Config a.yaml", opens the message where it cannot be read.

    Raises: InputError if it cannot be read, is no YAML, or is far longer than anything a user writes.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(_LONGEST_YAML + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise InputError(f"{what} cannot be read: {reason}.") from None
    if len(text) > _LONGEST_YAML:
        raise InputError(f"{what} is longer than {_LONGEST_YAML:,} characters; name another file.")
    return _parse_yaml(text, str(path))


def _read_raw(path: Path, readers: tuple[Path, ...] = ()) -> Any:
    """A config file's plain data, laid over that of the file which its key `base` names, relative to its folder."""
    named = f", the base of {readers[-1]}," if readers else ""
    raw = read_yaml(path, f"Config {path}{named}")
    if raw is None:
        raw = {}
    if not isinstance(raw, dict) or "base" not in raw:
        return raw
    base = raw.pop("base")
    if not isinstance(base, str) or "\0" in base:
        raise InputError(f"{path}: base must be the path of another config file, not {base!r}.")
    readers = (*readers, path)
    if os.path.realpath(path.parent / base) in [os.path.realpath(reader) for reader in readers]:
        raise InputError(f"{path}: base {base} leads back to itself.")
    below = _read_raw(path.parent / base, readers)
    if not isinstance(below, dict):
        raise InputError(f"{path.parent / base}, the base of {path}: not a mapping of sections.")
    return _laid_over(below, raw)


def _laid_over(base: Any, raw: Any) -> Any:
    """`raw`'s settings, and the base's where it has none; sections are merged, lists and values replaced."""
    if not (isinstance(base, dict) and isinstance(raw, dict)):
        return raw
    return base | {key: _laid_over(base.get(key), value) for key, value in raw.items()}


def read_settings(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Any:
    """Plain data of a YAML file and its bases, with `section.key=value` overrides (values are YAML), not checked yet.

    Raises: InputError if a file cannot be read, or an override is none.
    """
    raw = _read_raw(Path(path))
    if isinstance(raw, dict):
        for override in overrides:
            _apply_override(raw, override)
    return raw


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """`read_settings`, checked. Raises: InputError if a file cannot be read, or any key or value is wrong."""
    return parse_config(read_settings(path, overrides), str(path))


def to_yaml(config: Config) -> str:
    """The resolved configuration as YAML that `load_config` reads back to an equal `Config`."""
    return yaml.dump(json.loads(config.model_dump_json()), Dumper=_Dumper, sort_keys=False, width=120)
