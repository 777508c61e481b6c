"""Features: what is known of an item, and of a sample row. One file for each kind, one line here."""

from __future__ import annotations

from typing import Annotated, Any, Union

from pydantic import Discriminator, Field, Tag, model_validator

from mmctr_jax.features.base import Feature
from mmctr_jax.features.categorical import CategoricalFeature
from mmctr_jax.features.codes import CodesFeature
from mmctr_jax.features.embedding import EmbeddingFeature
from mmctr_jax.features.item_list import ItemsFeature
from mmctr_jax.features.neighbours import NeighboursFeature
from mmctr_jax.features.numeric import NumericFeature
from mmctr_jax.features.tags import TagsFeature
from mmctr_jax.features.vocabulary import Ids
from mmctr_jax.settings import Name, Positive, Settings, Width

KINDS: dict[str, type[Feature]] = {
    "categorical": CategoricalFeature,
    "numeric": NumericFeature,
    "tags": TagsFeature,
    "items": ItemsFeature,
    "embedding": EmbeddingFeature,
    "codes": CodesFeature,
    "neighbours": NeighboursFeature,
}


def _row_kind(raw: Any) -> Any:
    """A feature of rows is categorical unless it says otherwise."""
    return raw.get("kind", "categorical") if isinstance(raw, dict) else getattr(raw, "kind", "categorical")


_Any = Union[tuple(Annotated[kind, Tag(name)] for name, kind in KINDS.items())]  # noqa: UP007 (made of the dictionary)
ItemFeature = Annotated[_Any, Field(discriminator="kind")]
RowFeature = Annotated[_Any, Discriminator(_row_kind)]


class Features(Settings):
    """Column names and vocabularies. The defaults are the challenge's. Order here is order in the model."""

    history: Name = "item_seq"
    """List of clicked item ids, oldest first; zeros are padding wherever they stand."""
    item: Name = "item_id"
    """Target item; also the key column of item_info."""
    label: Name = "label"
    """1 clicked, 0 not; of training rows any number between, too."""
    labels: dict[Name, Positive] = {}
    """Columns of 0 and 1 that the model learns at once, such as `{label: 1.0, liked: 0.3}`, and what each one's logloss
    counts. `label` is always among them, with 1 unless it is named here; each other one has a head of its own, an AUC
    in each validation, and a column `score_NAME` in the predictions. `label` alone decides which checkpoint is best."""
    weight: Name | None = None
    """Column: what a training row counts in its batch's mean loss, above 0. null: 1."""
    user: Name = "user_id"
    """Never a model input; groups the rows for grouped AUC."""
    id_columns: tuple[Name, ...] = ("ID", "user_id", "item_id")
    """Columns that pass through to the predictions, where a file has them."""
    num_items: Width | None = None
    """Items, padding item 0 included. null: as many as item_info has."""
    item_hash: Annotated[int, Field(ge=3, le=2**31 - 1)] | None = None
    """Rows of the table of item ids. null: one for each item. Otherwise each item's vector is the sum of the two rows
    that its id is hashed to; two items seldom share both."""
    item_rows: Annotated[int, Field(ge=2, le=2**31 - 1)] | None = None
    """Rows of the table of item ids, padding's included. null: one for each item. Otherwise the items that the training
    rows name most often, as target or click, have one each, and the others are known by their features alone."""
    side: tuple[RowFeature, ...] = (
        CategoricalFeature(name="likes_level", vocab_size=11),
        CategoricalFeature(name="views_level", vocab_size=11),
    )
    """Features of the sample rows: columns of train, valid and test. `kind` is categorical unless given."""
    clicks: tuple[RowFeature, ...] = ()
    """Features of the single clicks: columns of lists, each as long as the history's in its row, of kind categorical
    or numeric. The target has none of these: zeros."""
    item_features: tuple[ItemFeature, ...] = (
        TagsFeature(name="item_tags"),
        EmbeddingFeature(name="item_emb_d128", dim=128),
    )
    """Features of the items: columns of item_info, or derived from them."""

    @model_validator(mode="after")
    def _rows_have_kinds_of_rows(self) -> Features:
        for f in self.side:
            if not f.of_rows:
                raise ValueError(
                    f"features.side lists {f.name!r} of kind {f.kind}, which describes items; "
                    "list it under features.item_features"
                )
            if isinstance(f, TagsFeature) and f.length is None:
                raise ValueError(f"features.side: {f.name}.length is missing; give it a value")
        for f in self.clicks:
            if not f.of_clicks:
                kinds = " or ".join(name for name, kind in KINDS.items() if kind.of_clicks)
                raise ValueError(f"features.clicks lists {f.name!r} of kind {f.kind}; clicks have features {kinds}")
        for where, listed in (("side", self.side), ("clicks", self.clicks)):
            for f in listed:
                if isinstance(f, Ids) and f.vocab_size is None:
                    raise ValueError(f"features.{where}: {f.name}.vocab_size is missing; give it a value")
        for f in self.item_features:
            if f.of_items:
                raise ValueError(
                    f"features.item_features lists {f.name!r} of kind {f.kind}, which describes rows; "
                    "list it under features.side"
                )
        return self

    @model_validator(mode="after")
    def _items_have_one_kind_of_rows(self) -> Features:
        if self.item_hash and self.item_rows:
            raise ValueError("features.item_hash and features.item_rows both say how item ids share a table; name one")
        return self

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Features:
        for where, names in (
            ("features.side", [f.name for f in self.side]),
            ("features.item_features", [f.name for f in self.item_features]),
            ("features.clicks", [f.name for f in self.clicks]),
        ):
            for name in names:
                if name == "params":  # Flax would take its table for all parameters
                    raise ValueError(f"{where} cannot have the name 'params'; rename the column")
                if names.count(name) > 1:
                    raise ValueError(f"{where} lists {name!r} twice; list it once")
        arrays = [f.name + part for f in self.item_features for part in f.parts]
        if twice := [name for name in arrays if arrays.count(name) > 1]:
            raise ValueError(f"features.item_features cannot list {twice[0]!r} beside the tags; rename the column")
        if "score" in self.id_columns:
            raise ValueError("features.id_columns lists 'score', the name of the predictions' own column; rename it")
        if self.weight in (self.history, self.item, self.label):
            raise ValueError(f"features.weight is {self.weight!r}, the history, item or label; name another column")
        if taken := {self.history, self.item, self.weight} & set(self.other_labels):
            raise ValueError(f"features.labels lists {min(taken)!r}, the history, item or weight; name other columns")
        for name in [f.name for f in self.side + self.clicks + self.item_features]:
            if name in (self.history, self.item, self.label, self.weight, *self.labels):
                raise ValueError(
                    f"column {name!r} is listed as a feature and is the history, item, label or weight; rename it"
                )
        listed = [(f.name, "side") for f in self.side] + [(f.name, "item") for f in self.item_features]
        places: dict[str, str] = {}
        for name, place in listed + [(f.name, "click") for f in self.clicks]:
            if name in places:
                raise ValueError(f"{name!r} is a {places[name]} and a {place} feature; rename one of the two columns")
            places[name] = place
        return self

    @model_validator(mode="after")
    def _columns_have_one_meaning(self) -> Features:
        own = {f.name: f for f in self.item_features if not f.is_derived}
        dims: dict[str, int] = {}
        for f in self.item_features:
            if f.is_derived and f.column.name in own and not own[f.column.name].is_vector:
                raise ValueError(
                    f"feature {f.name!r} has the source {f.column.name!r}, a column of ids; name one of vectors"
                )
            if f.column.is_vector and dims.setdefault(f.column.name, f.column.dim) != f.column.dim:
                raise ValueError(
                    f"features.item_features give column {f.column.name!r} the dims {dims[f.column.name]} and "
                    f"{f.column.dim}; it has one"
                )
        return self

    def __hash__(self) -> int:
        """Of what a config file says: `labels` is a dictionary, which has no hash of its own."""
        return hash(self.model_dump_json())

    @property
    def other_labels(self) -> tuple[str, ...]:
        """The labels besides `label`, in the order of the model's outputs after the first."""
        return tuple(name for name in self.labels if name != self.label)

    @property
    def item_columns(self) -> dict[str, Feature]:
        """The columns of item_info that the item features need, by name."""
        return {f.column.name: f.column for f in self.item_features}

    @property
    def vectors(self) -> tuple[Feature, ...]:
        """The item features that are frozen vectors."""
        return tuple(f for f in self.item_features if f.is_vector)

    @property
    def table_sizes(self) -> dict[str, int]:
        """Rows of each learned embedding table, padding included; `num_items` and vocabularies must not be null."""
        sizes = {f.name: f.table_size for f in self.side} | {
            self.item: self.item_hash or self.item_rows or self.num_items
        }
        sizes |= {f.name: f.table_size for f in self.item_features + self.clicks}
        return {name: size for name, size in sizes.items() if size is not None}

    def item_width(self, embedding_dim: int) -> int:
        """Width of one item's vector, id embedding and item features together (Eq. 3)."""
        return embedding_dim + sum(f.width(embedding_dim) for f in self.item_features)

    def click_width(self, embedding_dim: int) -> int:
        """D: width of the vector of a click or target, the item's and what is known of the click."""
        return self.item_width(embedding_dim) + sum(f.width(embedding_dim) for f in self.clicks)

    def row_width(self, embedding_dim: int) -> int:
        """Width of the vector of a row's own features."""
        return sum(self.item_width(embedding_dim) if f.of_items else f.width(embedding_dim) for f in self.side)

    def resolved(self, columns: dict[str, Any], num_items: int) -> Features:
        """With null `num_items` and item vocabularies filled in. `columns`: an item table of `item_columns`."""
        features = tuple(f.resolved(columns) for f in self.item_features)
        return self.model_copy(update={"item_features": features}).with_items(num_items)

    def with_items(self, num_items: int) -> Features:
        """To read rows that may name so many items, padding item 0 included."""
        side = tuple(f.of_new_items(num_items) for f in self.side)
        return self.model_copy(update={"num_items": num_items, "side": side})
