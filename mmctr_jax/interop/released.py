"""The released PyTorch checkpoint's names for our parameters, and the way between the two.

A released state dict is a flat mapping from name to array; its Linear weights are (out, in), ours (in, out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmctr_jax.errors import InputError
from mmctr_jax.features import Features
from mmctr_jax.models import ModelSettings

_EMBEDDING = "embedding_layer.embedding_layer."
_ENCODER = "transformer_encoder.transformer_encoder.layers."


def check_released_has(features: Features, model: ModelSettings) -> None:
    """Raises InputError, naming the setting, for a model with parts that the release has not."""
    if model.name != "mmctr":
        raise InputError(f"model.name {model.name}: released checkpoints are of the full model, mmctr, alone.")
    extras = {
        "model.dcn.rank": model.dcn.rank,
        "model.dcn.batch_norm": model.dcn.batch_norm,
        "model.dcn.similarity_bins": model.dcn.similarity_bins,
        "model.transformer.similarity": model.transformer.similarity,
        "model.transformer.target_attention": model.transformer.target_attention,
    }
    ours = ("categorical", "tags", "embedding")
    extras |= {f"features.item_features of kind {f.kind}": f.kind not in ours for f in features.item_features}
    extras |= {f"features.side of kind {f.kind}": f.kind != "categorical" for f in features.side}
    extras |= {"features.item_hash": features.item_hash, "features.item_rows": features.item_rows}
    extras |= {"features.clicks": features.clicks, "features.labels": features.other_labels}
    for key, wanted in extras.items():
        if wanted:
            raise InputError(f"{key}: the released model has none, so its checkpoints cannot fill this one.")


def names(
    features: Features, model: ModelSettings, with_dropout: bool | None = None
) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Released name → (path in our parameters, whether the matrix is transposed), for every parameter of the model.

    with_dropout: whether the deep layers were built with dropout, which numbers them otherwise (default: the config's).
    Raises: InputError for a model with parts that the release has not.
    """
    check_released_has(features, model)
    table: dict[str, tuple[tuple[str, ...], bool]] = {}

    def linear(name: str, *path: str) -> None:
        table[f"{name}.weight"] = (*path, "kernel"), True
        table[f"{name}.bias"] = (*path, "bias"), False

    def norm(name: str, *path: str) -> None:
        table[f"{name}.weight"] = (*path, "scale"), False
        table[f"{name}.bias"] = (*path, "bias"), False

    learned = [side.name for side in features.side] + [features.item]
    learned += [f.name for f in features.item_features if f.table_size is not None]
    for name in learned:
        table[f"{_EMBEDDING}embedding_layers.{name}.weight"] = ("embedding", name), False
    for f in features.item_features:
        if f.is_vector and model.project_mm:
            table[f"{_EMBEDDING}feature_encoders.{f.name}.weight"] = ("embedding", f.name, "kernel"), True
    for i in range(model.transformer.layers):
        theirs, ours = f"{_ENCODER}{i}.", ("encoder", f"layer_{i}")
        table[f"{theirs}self_attn.in_proj_weight"] = (*ours, "attention", "in_proj", "kernel"), True
        table[f"{theirs}self_attn.in_proj_bias"] = (*ours, "attention", "in_proj", "bias"), False
        linear(f"{theirs}self_attn.out_proj", *ours, "attention", "out_proj")
        for part in ("linear1", "linear2"):
            linear(f"{theirs}{part}", *ours, part)
        for part in ("norm1", "norm2"):
            norm(f"{theirs}{part}", *ours, part)
    if model.transformer.max_pool:
        linear("transformer_encoder.out_linear", "encoder", "pool_proj")
    for i in range(model.dcn.cross_layers):
        linear(f"crossnet.cross_layers.{i}", "cross", f"layer_{i}")
    # Their MLPs number modules, not layers: Linear, ReLU and, where its rate is not 0, Dropout.
    with_dropout = model.dcn.deep_dropout > 0 if with_dropout is None else with_dropout
    stride = 3 if with_dropout else 2
    for i in range(len(model.dcn.deep)):
        linear(f"parallel_dnn.mlp.{stride * i}", "deep", f"layer_{i}")
    for i in range(len(model.head)):
        linear(f"mlp.mlp.{2 * i}", "head", f"layer_{i}")
    linear(f"mlp.mlp.{2 * len(model.head)}", "head", "out")
    return table


def with_dropout(state_dict: Mapping[str, np.ndarray], model: ModelSettings) -> bool | None:
    """Whether a checkpoint's deep layers are numbered as dropout has them; null where both ways are one."""
    return "parallel_dnn.mlp.3.weight" in state_dict if len(model.dcn.deep) > 1 else None


def params_from_released(
    state_dict: Mapping[str, np.ndarray], features: Features, model: ModelSettings, like: Any
) -> dict[str, Any]:
    """Our parameters from a released state dict; dtypes stay as they are. `like`: their tree, for the shapes.

    Raises: InputError naming tensors that are missing, superfluous or of another shape.
    """
    table = names(features, model, with_dropout(state_dict, model))  # as it is: a rate plays no part in prediction
    missing, superfluous = sorted(set(table) - set(state_dict)), sorted(set(state_dict) - set(table))
    _refuse("are missing", missing)
    _refuse("have no place in the model", superfluous)
    misshapen = []
    params: dict[str, Any] = {}
    for name, (path, transposed) in table.items():
        values = np.asarray(state_dict[name])
        expected = _leaf(like, path).shape[:: -1 if transposed else 1]
        if values.shape != expected:
            misshapen.append(f"{name} {values.shape} instead of {expected}")
            continue
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = values.T if transposed else values
    _refuse("have another shape", misshapen)
    return params


def released_from_params(
    params: Any, features: Features, model: ModelSettings, with_dropout: bool | None = None
) -> dict[str, np.ndarray]:
    """A released state dict from our parameters: the inverse of `params_from_released`, bit for bit.

    with_dropout: as in `names`.
    """
    table = names(features, model, with_dropout)
    arrays = {name: (np.asarray(_leaf(params, path)), transposed) for name, (path, transposed) in table.items()}
    return {name: np.ascontiguousarray(x.T if transposed else x) for name, (x, transposed) in arrays.items()}


def _leaf(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def _refuse(problem: str, tensors: list[str]) -> None:
    if tensors:
        more = f" and {len(tensors) - 3} more" if len(tensors) > 3 else ""
        named = ", ".join(tensors[:3]) + more
        raise InputError(f"Released checkpoint: tensors {problem}: {named}; does the config describe its model?")
