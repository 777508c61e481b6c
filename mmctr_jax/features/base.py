"""The protocol of a feature: all that the rest of the project asks of a kind.

A feature describes a column of the items (`Features.item_features`) or of the sample rows (`Features.side`), or
something derived from one. A kind is a subclass in a file of its own, named in `mmctr_jax.features.KINDS`; nothing else
needs to know it. What follows are the questions, with the answers of a column that needs no deriving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from mmctr_jax.settings import Name, Settings

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.features.summaries import IdSummary, VectorSummary
    from mmctr_jax.models.embedding import EmbeddingLayer

Fitted = dict[str, np.ndarray]
"""What deriving gives: `values` (V, …) by item id, and whatever new items need to be derived alike."""


@dataclass(frozen=True)
class NewItems:
    """A feature of a newer item table than training's."""

    values: Any  # of the items after training's
    changed: np.ndarray  # (items of training,) bool: the newer table says something else of them
    unknown: int = 0  # ids that training did not have; they became padding


class Feature(Settings):
    """A column of items or rows, or what is derived from one."""

    kind: str
    name: Name
    """Name of the column; of the feature itself where it is derived."""

    of_rows: ClassVar[bool] = False
    """Whether it may describe sample rows; every kind but `of_items` may describe items."""
    of_clicks: ClassVar[bool] = False
    """Whether it may describe the single clicks of a history; its values are one number each then."""
    of_items: ClassVar[bool] = False
    """Whether its values are item ids: `embed` gets the items' vectors as values, and these ids."""
    lists_neighbours: ClassVar[bool] = False
    """Whether its values are item ids of which `embed` looks up the id embeddings."""
    is_vector: ClassVar[bool] = False
    """Whether its values are frozen vectors, which can be compared by cosine."""
    is_derived: ClassVar[bool] = False
    """Whether `fit` makes its values of another column's; a run keeps them as they were when it began."""

    # The column -----------------------------------------------------------------------------------------------------

    @property
    def column(self) -> Feature:
        """The feature that is the column to read: itself, unless this one is derived."""
        return self

    def read(self, column: Column) -> Any:
        """One chunk of its column, checked. Raises: InputError at the first row that is not as it must be."""
        raise NotImplementedError

    def read_rows(self, column: Column) -> np.ndarray:
        """(rows, …) one chunk of its column, checked, in the shape of `padding`. Only of features of rows."""
        return self.read(column)

    def padding(self, rows: int) -> np.ndarray:
        """(rows, …) values of padding, in the shape and type that the model gets. Only of features of rows."""
        return np.zeros(rows, np.int32)

    def schema(self) -> list[Any]:
        """What a cache of rows depends on, besides the files."""
        return [self.model_dump(mode="json")]

    def made_up(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        """(rows, …) values that it may have, at random, in the shape of `padding`."""
        raise NotImplementedError

    def request(self) -> dict[str, Any]:
        """What an export says of it to those who send requests: `name`, `kind`, and what its values may be."""
        raise NotImplementedError

    # In the item table ------------------------------------------------------------------------------------------------

    parts: ClassVar[tuple[str, ...]] = ("",)
    """What may follow its name in the names of its arrays."""

    def held(self, chunks: list[Any], ids: np.ndarray, num_items: int) -> dict[str, np.ndarray]:
        """The arrays by name that all chunks are in the item table, if `read` gives no arrays, which are held as they
        are. `ids` (rows,): whose rows they are."""
        raise NotImplementedError

    def of(self, table: dict[str, np.ndarray]) -> Any:
        """Its values (V, …) in an item table, as all that follows takes them."""
        return table[self.name]

    def joined(self, known: Any, new: Any) -> dict[str, list[np.ndarray]]:
        """The arrays that a table holds of `known` values and new ones behind them, each in parts of whole rows."""
        return {self.name: [known, new]}

    def taken(self, items: dict[str, jax.Array], ids: jax.Array) -> Any:
        """The values of items `ids` (…) in an item table on the device, as `embed` takes them."""
        import jax.numpy as jnp  # not above: every config imports this file

        return jnp.asarray(items[self.name])[ids]

    # Vocabulary and width ---------------------------------------------------------------------------------------------

    def resolved(self, columns: dict[str, np.ndarray]) -> Self:
        """With what was left to be found in the columns of the items, as an item table."""
        return self

    def without_limit(self) -> Self:
        """To read a newer table, whose ids may go beyond the vocabulary."""
        return self

    def of_new_items(self, num_items: int) -> Self:
        """To read rows that may name so many items, padding item 0 included."""
        return self

    @property
    def table_size(self) -> int | None:
        """Ids of its own learned table, padding included; None: it has none."""
        return None

    def width(self, embedding_dim: int) -> int:
        """Numbers that it adds to an item's or row's vector."""
        return embedding_dim

    # Deriving and new items -------------------------------------------------------------------------------------------

    def fit(self, vectors: np.ndarray) -> Fitted:
        """Derives its values from (V, dim) vectors by item id; zero vectors have none. Raises: InputError."""
        raise NotImplementedError

    def quality(self, fitted: Fitted) -> str | None:
        """A sentence on how well `fit` did; None: there is nothing to say."""
        return None

    def extended(self, values: Any, known: Any, fitted: Fitted) -> NewItems:
        """Its values of new items.

        Args:
          values: (all items, …) its column's in the newer table.
          known: (items of training, …) its own in training.
          fitted: what a run kept of `fit`, besides the values.
        """
        return NewItems(values[len(known) :], rows_that_differ(values[: len(known)], known))

    # In the model -----------------------------------------------------------------------------------------------------

    def embed(self, layer: EmbeddingLayer, values: Any, ids: jax.Array | None) -> jax.Array:
        """(…, width) vectors of its values. `ids` (…): the items they are of; None for rows."""
        raise NotImplementedError

    # On pages ---------------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """One line for a reader."""
        return f"{self.name} ({self.kind})"

    def summarise(self, values: Any, names: dict[int, str]) -> VectorSummary | IdSummary | None:
        """What its values (V, …), by item id, look like; None: there is nothing to show.

        names: id → what it stands for, as far as that is known.
        """
        return None

    def of_target(self, values: Any) -> tuple[str, np.ndarray, bool] | None:
        """What the values (V, …) say of a row with the item as its target: in words, as (V,), and whether ordered.

        None: nothing by themselves, as vectors, which are compared by cosine.
        """
        return None


def rows_that_differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(rows,) bool: whether the rows of two tables differ; what is not known (NaN) differs from what is."""
    differ = np.zeros(len(a), bool)
    for at in range(0, len(a), _ROWS):  # tables may be larger than memory
        x, y = a[at : at + _ROWS], b[at : at + _ROWS]
        differ[at : at + _ROWS] = ((x != y) & ~(np.isnan(x) & np.isnan(y))).reshape(len(x), -1).any(axis=1)
    return differ


_ROWS = 2**17  # compared at a time


def unchanged(known: np.ndarray) -> np.ndarray:
    """(items,) bool: of a derived feature, whose known items keep what training derived."""
    return np.zeros(len(known), bool)
