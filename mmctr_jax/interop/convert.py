"""Released PyTorch weights in, and out again. Needs PyTorch, which nothing else here does."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import numpy as np

from mmctr_jax.config import Config
from mmctr_jax.data.items import load_items
from mmctr_jax.devices.flags import plain_jax
from mmctr_jax.devices.sharding import make_mesh, put_items, put_replicated, unfilled
from mmctr_jax.errors import InputError
from mmctr_jax.files import replacing, sha256
from mmctr_jax.interop.released import check_released_has, params_from_released, released_from_params, with_dropout
from mmctr_jax.prediction.predictor import restore_best
from mmctr_jax.runs.directory import RunDirectory
from mmctr_jax.runs.mirror import copied
from mmctr_jax.training.step import init_state, parameter_shapes


def _torch():
    try:
        import torch
    except ImportError:
        raise InputError("Converting needs PyTorch, which is not installed: pip install torch.") from None
    return torch


def read_state_dict(checkpoint: Path) -> dict[str, np.ndarray]:
    """Tensors by name. Unpickles tensors only, never code. Raises InputError for anything else in the file."""
    torch = _torch()
    try:
        loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"Checkpoint {checkpoint} cannot be read: {error.strerror or error}.") from None
    except Exception:  # torch, pickle and zip raise many kinds
        raise InputError(
            f"Checkpoint {checkpoint} is not a file of tensors as torch.save writes a state dict; "
            "it may be damaged, or hold objects, which are not loaded."
        ) from None
    if not isinstance(loaded, dict) or not loaded:
        raise InputError(f"Checkpoint {checkpoint} holds no state dict (a mapping from names to tensors).")
    for name, tensor in loaded.items():
        if not isinstance(tensor, torch.Tensor):
            raise InputError(f"Checkpoint {checkpoint}: {name} is no tensor; give the state dict itself.")
        if tensor.dtype != torch.float32:
            raise InputError(f"Checkpoint {checkpoint}: tensor {name} is {tensor.dtype}; all must be float32.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise InputError(f"Checkpoint {checkpoint}: tensor {name} is sparse or has no values; give plain ones.")
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"Checkpoint {checkpoint}: tensor {name} holds numbers that are not finite.")
    return {str(name): tensor.detach().numpy() for name, tensor in loaded.items()}


@plain_jax()
def torch_to_jax(checkpoint: Path, config: Config, out: Path) -> int:
    """Writes a run directory with the checkpoint's weights at step 0; returns their number.

    Raises: InputError, before anything is written, if a tensor is missing, superfluous, misshapen or not float32.
    """
    check_released_has(config.features, config.model)
    if config.train.sharding != "replicated":
        raise InputError(f"train.sharding {config.train.sharding}: released tables come as they are; drop it.")
    if out.exists():
        raise InputError(f"Output {out} exists; name a new folder.")
    state_dict = read_state_dict(checkpoint)
    items = load_items(config.data.item_info, config.features, config.data.cache_dir)
    config, mesh = config.with_features(items.features), make_mesh()
    on_device = put_items(items.table, mesh, config)
    params = params_from_released(state_dict, config.features, config.model, parameter_shapes(config, on_device))
    converted = {
        "sha256": sha256(checkpoint).hexdigest(),
        "with_dropout": with_dropout(state_dict, config.model),
    }
    state = init_state(config, on_device, mesh).replace(params=put_replicated(params, mesh), averaged=None)
    run = RunDirectory(out)
    with run.lock():
        with run.checkpoints(writable=True) as checkpoints:
            checkpoints.save(state.parts(), {"plateau": {"best_step": 0}}, step=0, best_step=0)
        run.write_start(config, items, {"item_info": items.fingerprint}, converted=converted)
    return sum(x.size for x in jax.tree.leaves(params))


@plain_jax()
def jax_to_torch(directory: Path, out: Path) -> int:
    """Writes the best checkpoint of a run directory as a released state dict; returns the number of weights."""
    torch = _torch()
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(f"Output {out} cannot be written; name a file in a folder that exists.")
    if directory.resolve() in out.resolve().parents:
        raise InputError(f"Output {out} lies in the run directory itself; name a file elsewhere.")
    directory = copied(directory)
    run = RunDirectory(directory)
    config = run.read_config()
    check_released_has(config.features, config.model)
    converted = run.read_metadata().get("converted") or {}
    mesh = make_mesh()
    items = put_items(run.read_items(), mesh, config)
    _, params, _ = restore_best(directory, config, items, mesh)
    state_dict = released_from_params(
        unfilled(params, config.features), config.features, config.model, converted.get("with_dropout")
    )
    tensors = {name: torch.from_numpy(x.copy()) for name, x in state_dict.items()}
    try:
        with replacing(out) as temporary:
            torch.save(tensors, temporary)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the latter
        raise InputError(f"Output {out} cannot be written: {str(error).splitlines()[0]}.") from None
    return sum(x.numel() for x in tensors.values())
