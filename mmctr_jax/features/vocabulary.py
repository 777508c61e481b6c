"""What kinds made of ids have in common: a vocabulary with a learned table, 0 being padding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np

from mmctr_jax.features.base import Feature, Fitted, NewItems
from mmctr_jax.features.lists import REST, flat
from mmctr_jax.features.summaries import IdSummary, summarise_ids
from mmctr_jax.settings import Width

if TYPE_CHECKING:
    from mmctr_jax.data.parquet import Column


class Ids(Feature):
    """Ids from 0, which is padding: a zero vector that never learns."""

    vocab_size: Width | None = None
    """Ids run from 0 to vocab_size − 1. null, for items alone: the largest id among them, plus one."""

    @property
    def table_size(self) -> int | None:
        return self.vocab_size

    def resolved(self, columns: dict[str, np.ndarray]) -> Self:
        if self.vocab_size is not None:
            return self
        largest = max(int(columns[name].max(initial=0)) for name in (self.name, self.name + REST) if name in columns)
        return self.model_copy(update={"vocab_size": largest + 1})

    def without_limit(self) -> Self:
        return self.model_copy(update={"vocab_size": None})

    def schema(self) -> list:
        return [self.name, self.vocab_size]

    def made_up(self, rows: int, rng: np.random.Generator) -> np.ndarray:
        return rng.integers(0, self.vocab_size, self.padding(rows).shape).astype(np.int32)

    def request(self) -> dict:
        return {"name": self.name, "kind": self.kind, "vocab_size": self.vocab_size}

    def check(self, column: Column, ids: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
        """int32 of int64 `ids`, of lists with (rows + 1,) `offsets`. Raises: InputError at an id beyond vocab_size."""
        limit = np.iinfo(np.int32).max if self.vocab_size is None else self.vocab_size
        wrong = np.flatnonzero((ids < 0) | (ids >= limit))
        if wrong.size:
            row = wrong[0] if offsets is None else np.searchsorted(offsets, wrong[0], side="right") - 1
            owner = "ids must be" if self.vocab_size is None else "the config's vocab_size allows ids"
            raise column.refuse(row, f"id {ids[wrong[0]]}; {owner} 0 … {limit - 1}.")
        return ids.astype(np.int32)

    def extended(self, values: np.ndarray, known: np.ndarray, fitted: Fitted) -> NewItems:
        new = values >= self.vocab_size
        return replace(super().extended(np.where(new, 0, values), known, fitted), unknown=int(new.sum()))

    def summarise(self, values: np.ndarray, names: dict[int, str]) -> IdSummary:
        return summarise_ids(self.name, self.kind, flat(values), names)
