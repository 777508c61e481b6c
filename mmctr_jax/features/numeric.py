"""A number per item or row, such as a price: standardised, and as a learned vector of the range that it falls into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mmctr_jax.features.base import Feature
from mmctr_jax.settings import Positive

if TYPE_CHECKING:
    import jax

    from mmctr_jax.data.parquet import Column
    from mmctr_jax.models.embedding import EmbeddingLayer

_FARTHEST = 10.0  # standard deviations from the mean: what is farther counts as so far


class NumericFeature(Feature):
    """A column of numbers; null and NaN mean that it is not known. `mmctr prepare` finds mean, deviation and ranges."""

    kind: Literal["numeric"] = "numeric"
    log: bool = False
    """The logarithm of 1 + the number (of its size, where it is negative) takes the number's place, but for
    `boundaries`: for prices, counts and waiting times."""
    mean: float = 0.0
    """What is subtracted, after `log`. Then it is divided by `std`; a number that is not known is 0 then, and 1 in a
    column of its own. Beyond 10 deviations a number counts as 10."""
    std: Positive = 1.0
    """The standard deviation, after `log`."""
    boundaries: Annotated[tuple[float, ...], Field(max_length=255)] = ()
    """Rising. Where given, the range that the number is in, between these, has a learned vector besides. A number equal
    to a boundary is below it; unknown ones have the zero vector."""

    of_rows: ClassVar[bool] = True
    of_clicks: ClassVar[bool] = True

    @model_validator(mode="after")
    def _boundaries_rise(self) -> Self:
        if list(self.boundaries) != sorted(set(self.boundaries)):
            raise ValueError(f"{self.name}.boundaries do not rise; sort them, each once")
        return self

    def read(self, column: Column) -> np.ndarray:
        """(rows,) float32, NaN where the number is not known."""
        return column.numbers()

    def padding(self, rows: int) -> np.ndarray:
        return np.zeros(rows, np.float32)

    def schema(self) -> list:
        return [self.name, "number"]

    def made_up(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        numbers = rng.normal(self.mean, self.std, rows)
        return np.where(rng.random(rows) < 0.1, np.nan, numbers).astype(np.float32)

    def request(self) -> dict:
        return {"name": self.name, "kind": self.kind}

    @property
    def table_size(self) -> int | None:
        return len(self.boundaries) + 2 if self.boundaries else None

    def width(self, embedding_dim: int) -> int:
        return 2 + (embedding_dim if self.boundaries else 0)

    def embed(self, layer: EmbeddingLayer, values: jax.Array, ids: jax.Array | None) -> jax.Array:
        import jax.numpy as jnp  # not above: every config imports this file

        unknown = jnp.isnan(values)
        number = jnp.where(unknown, 0, values)
        x = jnp.sign(number) * jnp.log1p(jnp.abs(number)) if self.log else number
        x = jnp.clip((x - self.mean) / self.std, -_FARTHEST, _FARTHEST)
        real = True if ids is None else ids != 0
        parts = jnp.stack([jnp.where(unknown, 0, x), unknown.astype(x.dtype)], axis=-1)
        parts = jnp.where(jnp.asarray(real)[..., None], parts, 0).astype(layer.dtype)
        if not self.boundaries:
            return parts
        above = number[..., None] > jnp.asarray(self.boundaries, jnp.float32)
        place = jnp.where(real & ~unknown, 1 + above.sum(axis=-1), 0)
        return jnp.concatenate([parts, layer.lookup(self.name, place)], axis=-1)

    def of_target(self, values: np.ndarray) -> tuple[str, np.ndarray, bool]:
        return f"target's {self.name}", values, True
