"""What every model is: its settings, the traits that they declare, and a Flax module from features to a logit."""

from __future__ import annotations

from typing import ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmctr_jax.features import Features
from mmctr_jax.models.embedding import Embedded, EmbeddingLayer
from mmctr_jax.models.mlp import MLP
from mmctr_jax.settings import Positive, Rate, Settings, Width

Batch = dict[str, jax.Array]
"""As the loader makes it (`data.loader.Batch`)."""


class ModelSettings(Settings):
    """What all models have. A subclass adds its own settings, and says what the rest must know of its model."""

    name: str
    embedding_dim: Width = 64
    """Width of every learned embedding."""
    max_history: Width = 64
    """N: the most recent N clicks count, older ones are dropped."""
    project_mm: bool = True
    """A learned, bias-free square map on each frozen vector, as released. false: the vector itself, as in the paper."""
    embedding_init_std: Positive = 1e-4
    """Standard deviation of embedding tables at the start."""
    id_dropout: Rate = 0.0
    """Share of target and history ids whose id embedding is left out (that of padding) in a training step: teaches the
    model to score new items by what else is known of them."""

    module: ClassVar[type[Model]]
    """The Flax module that these are the settings of."""
    shares_history: ClassVar[bool] = False
    """Whether a batch may have one history (1, N) that is that of all its rows."""

    def check(self, features: Features) -> None:
        """Raises: ValueError, naming the setting, if the model cannot be made of these features."""

    @property
    def compares_vectors(self) -> bool:
        """Whether it compares the items' frozen vectors as they are."""
        return False

    @property
    def sees_padding(self) -> bool:
        """Whether it computes something else where a history has more padding."""
        return False

    @property
    def has_batch_statistics(self) -> bool:
        """Whether it takes means over batches, which should be those of rows of all lengths."""
        return False

    def narrowed(self, length: int) -> Self:
        """The settings whose model is enough where no history is longer than `length` clicks, see `models.live`."""
        return self


class Model(nn.Module):
    """Arrays in, logits out; knows no files, no devices and no configuration but its own.

    Attributes:
      features: resolved, so vocabularies are known.
      settings: of the subclass of `ModelSettings` that names this module.
      dtype: of the computation; parameters are float32.
    """

    features: Features
    settings: ModelSettings
    dtype: jnp.dtype = jnp.float32

    def __call__(self, batch: Batch, items: dict[str, jax.Array], train: bool) -> jax.Array:
        """Logits (B,) of a batch given the item table (`data.items.ItemTable`); (B, 1 + L) with L more labels."""
        raise NotImplementedError

    def embedded(self, batch: Batch, items: dict[str, jax.Array], train: bool) -> Embedded:
        """The vectors of side features, target and clicks; submodule `embedding`.

        Whoever asks for the collection `vectors` gets the last ones sown there: `item_vector`, of the targets, and of a
        model that has such, `user_vector`, what their product with an item's says of a click.
        """
        e = EmbeddingLayer(self.features, self.settings, self.dtype, name="embedding")(batch, items, train)
        self.sow_vector("item_vector", e.target)
        return e

    def sow_vector(self, name: str, vectors: jax.Array) -> None:
        """For whoever asks for the collection `vectors`; parameters are initialised without it."""
        if not self.is_initializing():
            self.sow("vectors", name, vectors)

    def logits(self, widths: tuple[int, ...], x_BxF: jax.Array, train: bool) -> jax.Array:
        """(B,) by the prediction MLP (Eq. 9); submodule `head`. (B, 1 + L) where there are L more labels than `label`.

        Never in bfloat16: its 8 bits would tie scores together, and the loss is computed from them.
        """
        outputs = 1 + len(self.features.other_labels)
        logits = MLP(widths, jnp.promote_types(self.dtype, jnp.float32), outputs=outputs, name="head")(x_BxF, train)
        return logits if outputs > 1 else logits[:, 0]
