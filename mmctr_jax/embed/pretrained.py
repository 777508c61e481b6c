"""Models of the `transformers` library, by folder or by name on the Hugging Face hub.

Not through sentence-transformers, which would carry only the mean over tokens and the call of a model's own features:
it fills weights that a checkpoint lacks with random ones and does not say which, pads SigLIP's texts to the longest of
a batch, which changes their vectors, pads on the left where a tokenizer says so, and returns NaN as vectors.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmctr_jax.errors import InputError

_FORMAT = 1  # to be raised where the same model is to give other vectors


@dataclass(frozen=True)
class Pretrained:
    """A model that is only to be used, not trained: in float32, evaluation mode, on the GPU if there is one."""

    name: str
    model: Any  # torch.nn.Module
    preprocessor: Any  # its tokenizer, or image processor
    has_pooler: bool  # false: the checkpoint has no weights for a pooler, so that the model's is random
    digest: str  # SHA-256 of configuration and weights, the same wherever they are stored

    @property
    def device(self) -> Any:
        """The torch.device of the weights."""
        return next(self.model.parameters()).device

    @contextmanager
    def encoding(self, what: str):
        """Within it there are no gradients, and the model's errors become an InputError: it cannot encode `what`."""
        import torch

        try:
            with torch.inference_mode():
                yield
        except torch.cuda.OutOfMemoryError:
            raise InputError(
                f"The GPU's memory is too small to encode {what}; choose a smaller --batch-size. "
                "What is done is kept: the same command continues from there."
            ) from None
        except InputError:
            raise
        except Exception as error:  # each kind of model fails in its own way
            raise InputError(f"Model {self.name} cannot encode {what}: {_first_line(error)}.") from None


def load(name: str, preprocessor: str, download: bool) -> Pretrained:
    """Loads a model and what prepares its input.

    No code that comes with a model is run, and nothing but tensors is unpickled.

    Args:
      name: a folder, or a name on the hub.
      preprocessor: "AutoTokenizer" or "AutoImageProcessor", of transformers.
      download: whether the hub may be asked; otherwise the folder or the hub's local cache must have everything.
    Raises: InputError if a package is missing or the model cannot be loaded whole.
    """
    try:
        import PIL  # noqa: F401  (image processors need it, and do not all say so)
        import torch
        import transformers
    except ImportError as error:
        raise InputError(f"Encoders need {error.name}: pip install torch transformers pillow.") from None
    place = _find(name, download)
    transformers.logging.set_verbosity_error()
    if not download:
        transformers.logging.disable_progress_bar()
    options = {"local_files_only": not download, "trust_remote_code": False}
    try:
        with warnings.catch_warnings(action="ignore"):
            processor = getattr(transformers, preprocessor).from_pretrained(place, **options)
            model, found = transformers.AutoModel.from_pretrained(
                place, output_loading_info=True, weights_only=True, **options
            )
    except Exception as error:  # the many ways in which files can be missing, damaged or of no use here
        raise InputError(f"Model {name} cannot be loaded: {_first_line(error)}.") from None
    random = set(found["missing_keys"])
    has_features = hasattr(model, "get_text_features") or hasattr(model, "get_image_features")
    missing = sorted(key for key in random if has_features or "pooler" not in key)  # a pooler can be done without
    if missing:
        raise InputError(
            f"Model {name} has no weights for {missing[0]} ({len(missing)} missing in all); take a whole checkpoint."
        )
    model = (model.get_encoder() if model.config.is_encoder_decoder else model).float().eval()
    digest = _digest(model, random)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic = False, True
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return Pretrained(name, model, processor, has_pooler=not random, digest=digest)


def _find(name: str, download: bool) -> str:
    """What `from_pretrained` is to load: without `download` a folder, for which it never asks the hub."""
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"Model folder {name} does not exist; check the path (it is relative to the current folder).")
    if download:
        return name
    try:
        return snapshot_download(name, local_files_only=True)  # `from_pretrained` may ask in spite of this option
    except Exception:  # not there, or not a possible name
        raise InputError(
            f"Model {name} is not on this computer; add --download to fetch it from the Hugging Face hub, or name "
            "a folder that holds it."
        ) from None


def _digest(model: Any, random: set[str]) -> str:
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("_name_or_path", "transformers_version")}
    digest = hashlib.sha256(json.dumps([_FORMAT, config], sort_keys=True, default=str).encode())
    for key, tensor in sorted(model.state_dict().items()):
        if key not in random:
            digest.update(f"{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()))
    return digest.hexdigest()


def checked(vectors: Any, names: list[str]) -> np.ndarray:
    """A model's output as (batch, width) float32.

    Args:
      vectors: a torch tensor.
      names: of the batch's items.
    Raises: ValueError if it is of another shape; InputError, with the item's name, if it is not finite.
    """
    vectors = vectors.float().cpu().numpy()
    if vectors.ndim != 2:
        raise ValueError(f"it gives an array of shape {vectors.shape}, not one vector for each")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        raise InputError(f"The model gives NaN or infinite numbers for item {names[wrong[0]]}; take another model.")
    return vectors


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
