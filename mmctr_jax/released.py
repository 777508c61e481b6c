"""The released PyTorch checkpoint's names for our parameters, and the way between the two.

A released state dict is a flat mapping from name to array; its Linear weights are (out, in), ours (in, out).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmctr_jax.config import Config
from mmctr_jax.errors import InputError

_EMBEDDING = "embedding_layer.embedding_layer."
_ENCODER = "transformer_encoder.transformer_encoder.layers."


def names(config: Config) -> dict[str, tuple[tuple[str, ...], bool]]:
    """Released name → (path in our parameters, whether the matrix is transposed), for every parameter of the model.

    Raises: InputError for a model with batch norm, which the release has not.
    """
    features, model = config.features, config.model
    if model.dcn.batch_norm:
        raise InputError("model.dcn.batch_norm: the released model has none, so its checkpoints cannot fill it.")
    table: dict[str, tuple[tuple[str, ...], bool]] = {}

    def linear(name: str, *path: str) -> None:
        table[f"{name}.weight"] = (*path, "kernel"), True
        table[f"{name}.bias"] = (*path, "bias"), False

    def norm(name: str, *path: str) -> None:
        table[f"{name}.weight"] = (*path, "scale"), False
        table[f"{name}.bias"] = (*path, "bias"), False

    learned = [side.name for side in features.side] + [features.item]
    learned += [f.name for f in features.item_features if f.kind != "embedding"]
    for name in learned:
        table[f"{_EMBEDDING}embedding_layers.{name}.weight"] = ("embedding", name), False
    for f in features.item_features:
        if f.kind == "embedding" and model.project_mm:
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
    stride = 3 if model.dcn.deep_dropout > 0 else 2
    for i in range(len(model.dcn.deep)):
        linear(f"parallel_dnn.mlp.{stride * i}", "deep", f"layer_{i}")
    for i in range(len(model.head)):
        linear(f"mlp.mlp.{2 * i}", "head", f"layer_{i}")
    linear(f"mlp.mlp.{2 * len(model.head)}", "head", "out")
    return table


def params_from_released(state_dict: Mapping[str, np.ndarray], config: Config) -> dict[str, Any]:
    """Our parameters from a released state dict; dtypes stay as they are.

    Raises: InputError naming the first tensor that is missing or superfluous.
    """
    table = names(config)
    for wanted, given, problem in ((table, state_dict, "is missing"), (state_dict, table, "has no place in the model")):
        absent = sorted(set(wanted) - set(given))
        if absent:
            raise InputError(f"Released checkpoint: tensor {absent[0]} {problem}; does the config describe its model?")
    params: dict[str, Any] = {}
    for name, (path, transposed) in table.items():
        node = params
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = np.asarray(state_dict[name]).T if transposed else np.asarray(state_dict[name])
    return params
