"""A request as a function of arrays: one history, many candidates and their side features → logits and scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmctr_jax.config import Config
from mmctr_jax.data.loader import empty_batch
from mmctr_jax.models import ItemVectors
from mmctr_jax.models.embedding import EmbeddingLayer
from mmctr_jax.prediction.calibration import Calibration
from mmctr_jax.training.step import model_of, narrowed

ITEM_VECTORS, FROZEN, SIDE, CLICKS = "item_vectors", "frozen.", "side.", "clicks."


def item_arrays(config: Config, params: Any, table: dict[str, np.ndarray], num_items: int) -> dict[str, np.ndarray]:
    """What a request needs of the items, by id: (num_items, D) float32 `item_vectors`, each item as the model sees it,
    its id embedding, if it has one, and its features; and the frozen vectors themselves where the model compares them.

    table: the item table; num_items: with those that are new since training.
    """
    rows = 8192  # at a time
    layer = EmbeddingLayer(config.features, config.model, jnp.float32)
    rest = empty_batch(config.features, rows, 0)
    width = config.features.item_width(config.model.embedding_dim)
    items = {name: jnp.asarray(values) for name, values in table.items()}

    @jax.jit
    def embed(ids):
        return layer.apply({"params": params["embedding"]}, rest | {"item": ids}, items, False).target[:, :width]

    starts = range(0, num_items, rows)
    parts = [embed(np.minimum(np.arange(start, start + rows, dtype=np.int32), num_items - 1)) for start in starts]
    arrays = {ITEM_VECTORS: np.concatenate([np.asarray(part) for part in parts])[:num_items]}
    if config.model.compares_vectors:
        for f in config.features.vectors:
            arrays[f"{FROZEN}{f.name}"] = np.ascontiguousarray(table[f.name][:num_items], np.float32)
    return arrays


def request_function(
    config: Config, params: Any, batch_stats: Any, length: int, calibration: Calibration | None
) -> Callable[[dict], dict]:
    """From arrays by name to `logits` and `scores`, (M,) float32 each, and `scores.NAME` of each other label.

    Of the arrays: those of `item_arrays`; `history` (length,) and `candidates` (M,) int32 ids, the history with zeros
    before its clicks; for each side feature `side.NAME` (M, …), and for each feature of the clicks `clicks.NAME`
    (length,), in the types of their kinds. `scores` are probabilities, calibrated if there
    is a calibration, and NaN where an id is no item's. The parameters must be those that are enough for this length.
    """
    model = model_of(narrowed(config, length))

    def request(arrays):
        num_items = arrays[ITEM_VECTORS].shape[0]

        def known(ids):
            return (ids >= 0) & (ids < num_items)

        history, candidates = (jnp.where(known(arrays[name]), arrays[name], 0) for name in ("history", "candidates"))
        history = history[None]
        if not config.model.shares_history:
            history = jnp.broadcast_to(history, (*candidates.shape, length))
        clicks = {f.name: arrays[f"{CLICKS}{f.name}"][None] for f in config.features.clicks}
        if not config.model.shares_history:
            clicks = {name: jnp.broadcast_to(x, (*candidates.shape, length)) for name, x in clicks.items()}
        batch = {
            "clicks": clicks,
            "history": history,
            "item": candidates,
            "side": {f.name: arrays[f"{SIDE}{f.name}"] for f in config.features.side},
            "weight": jnp.ones(candidates.shape),
        }
        for f in (f for f in config.features.side if f.of_items):
            batch["side"][f.name] = jnp.where(known(batch["side"][f.name]), batch["side"][f.name], 0)
        frozen = {name.removeprefix(FROZEN): array for name, array in arrays.items() if name.startswith(FROZEN)}
        items = ItemVectors(arrays[ITEM_VECTORS], frozen)
        variables = jax.tree.map(jnp.asarray, {"params": params, "batch_stats": batch_stats})
        logits = model.apply(variables, batch, items, train=False).astype(jnp.float32)
        others = logits[:, 1:] if logits.ndim == 2 else None
        logits = logits if logits.ndim == 1 else logits[:, 0]
        is_known_M = known(arrays["candidates"]) & known(arrays["history"]).all()
        logits = jnp.where(is_known_M, logits, jnp.nan)
        found = {"logits": logits, "scores": jax.nn.sigmoid(_calibrated(calibration, logits))}
        for i, name in enumerate(config.features.other_labels):
            found[f"scores.{name}"] = jax.nn.sigmoid(jnp.where(is_known_M, others[:, i], jnp.nan))
        return found

    return request


def _calibrated(calibration: Calibration | None, logits: jax.Array) -> jax.Array:
    """As `Calibration.apply`."""
    if calibration is None:
        return logits
    if calibration.kind == "platt":
        return calibration.slope * logits + calibration.intercept
    knots, values = (np.array(x, np.float32) for x in (calibration.knots, calibration.at_knots))
    widths = np.diff(knots)
    risen = jnp.clip(logits[:, None] - knots[:-1], 0, widths)  # of each piece, how far
    return values[0] + risen @ (np.diff(values) / np.where(widths > 0, widths, 1))


def input_shapes(config: Config, arrays: dict[str, np.ndarray], length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a request's arrays: of any number of items V and of candidates M."""
    V, M = jax.export.symbolic_shape("V, M")
    shapes = {name: jax.ShapeDtypeStruct((V, *array.shape[1:]), array.dtype) for name, array in arrays.items()}
    shapes |= {"history": jax.ShapeDtypeStruct((length,), jnp.int32)}
    shapes |= {f"{CLICKS}{f.name}": jax.ShapeDtypeStruct((length,), f.padding(0).dtype) for f in config.features.clicks}
    shapes |= {"candidates": jax.ShapeDtypeStruct((M,), jnp.int32)}
    none = {f.name: f.padding(0) for f in config.features.side}
    return shapes | {f"{SIDE}{name}": jax.ShapeDtypeStruct((M, *x.shape[1:]), x.dtype) for name, x in none.items()}
