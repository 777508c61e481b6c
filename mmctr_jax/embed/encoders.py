"""Texts and pictures → vectors, by a pretrained model; an interrupted encoding continues where it stopped."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from mmctr_jax.console import log
from mmctr_jax.embed import pretrained
from mmctr_jax.embed.item_file import ItemFile
from mmctr_jax.embed.parts import Part, row_chunks
from mmctr_jax.embed.resumable import encode_resumably
from mmctr_jax.errors import InputError

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_DEFAULT_TOKENS = 512  # at most, for a model that states no limit


def text_part(item_file: ItemFile, name: str, batch_size: int, download: bool) -> Part:
    """Vectors of the titles: the model's own text features (CLIP), else the mean of its outputs over the tokens (BERT).

    Texts are cut at the model's limit.

    Args:
      name: a folder, or a name on the hub, see `pretrained.load`.
      batch_size: texts at once.
    Raises: InputError if the model cannot be loaded or used.
    """
    texts = item_file.texts()
    model = pretrained.load(name, "AutoTokenizer", download)
    tokenizer = model.preprocessor
    tokenizer.padding_side = "right"  # position 0 is a text's first token, however it is batched
    if tokenizer.pad_token is None:  # any will do, since it is masked
        tokenizer.pad_token = tokenizer.eos_token
    # A model without a mask sees its padding, and must always get as much as it was trained with (SigLIP).
    padding = "longest" if "attention_mask" in tokenizer.model_input_names else "max_length"
    cut = {"truncation": True, "max_length": _max_tokens(tokenizer, model.model.config)}

    rows = np.array([row for row, text in enumerate(texts) if text])
    digest = hashlib.sha256(f"{model.digest} {padding} {cut}".encode())
    tokens, known = [], False
    with model.encoding("the titles"):
        for chunk in row_chunks(len(rows)):
            ids_of_text = tokenizer([texts[row] for row in rows[chunk]], **cut)["input_ids"]
            for row, ids in zip(rows[chunk], ids_of_text, strict=True):
                tokens.append(len(ids))
                known = known or not set(ids) <= set(tokenizer.all_special_ids)
                digest.update(np.array([row, len(ids), *ids], np.int64))
    if not known:
        raise InputError(f"The tokenizer of {name} knows no word of any title; are its vocabulary files missing?")

    def encode(batch: np.ndarray) -> np.ndarray:
        with model.encoding("the titles"):
            inputs = tokenizer([texts[row] for row in batch], padding=padding, return_tensors="pt", **cut)
            vectors = _text_vectors(model.model, inputs.to(model.device))
            return pretrained.checked(vectors, [item_file.name(row) for row in batch])

    # By length, for little padding; the longest first, so that memory that is too small shows at once.
    order = rows[np.argsort(-np.array(tokens), kind="stable")]
    log.info(f"Text encoder {name}, on {model.device.type}.")
    vectors = encode_resumably(_folder(item_file, digest), len(texts), order, batch_size, encode, "titles")
    return Part("text", name, vectors, digest.hexdigest())


def _max_tokens(tokenizer: Any, config: Any) -> int:
    positions = getattr(getattr(config, "text_config", config), "max_position_embeddings", None)
    if tokenizer.model_max_length < 10**6:  # else it knows none
        return min(tokenizer.model_max_length, positions or tokenizer.model_max_length)
    return positions - 2 if positions else _DEFAULT_TOKENS  # RoBERTa's first two positions are never used


def _text_vectors(model: Any, inputs: Any) -> Any:
    if hasattr(model, "get_text_features"):
        return _tensor(model.get_text_features(**inputs))
    outputs_BxTxD = model(**inputs).last_hidden_state
    if "attention_mask" not in inputs:
        return outputs_BxTxD.mean(1)
    mask_BxTx1 = inputs["attention_mask"][..., None].float()
    return (outputs_BxTxD * mask_BxTx1).sum(1) / mask_BxTx1.sum(1)


def _tensor(features: Any) -> Any:
    """`get_text_features` and `get_image_features` return a tensor in transformers 4, an output object in 5."""
    return features.pooler_output if hasattr(features, "pooler_output") else features


def image_part(item_file: ItemFile, name: str, pictures: Path, batch_size: int, download: bool) -> Part:
    """Vectors of pictures: the model's own image features (CLIP), else its pooled output, else the mean of its outputs.

    A picture that cannot be read gives zeros, as if there were none, and is counted.

    Args:
      name: a folder, or a name on the hub, see `pretrained.load`.
      pictures: folder with a file for each item, named as `ItemFile.name` does, ending in one of `PICTURES`.
      batch_size: pictures at once.
    Raises: InputError if there is no picture, or the model cannot be loaded or used.
    """
    files = _find_pictures(pictures, item_file)
    model = pretrained.load(name, "AutoImageProcessor", download)
    rows = np.array(sorted(files))
    digest = hashlib.sha256(f"{model.digest} {model.preprocessor.to_json_string()}".encode())
    for row in rows:
        stat = files[row].stat()
        digest.update(f"{row} {files[row].name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    from PIL import Image

    with model.encoding("a picture"):
        blank = _pixels(Image.new("RGB", (32, 32)), model.preprocessor)

    def read(row: int) -> Any:
        """(1, 3, height, width) as the model takes them; None for a picture that cannot be read."""
        try:
            with Image.open(files[row]) as picture:
                return _pixels(picture, model.preprocessor)
        except Exception:  # damaged pictures raise whatever their format's reader runs into
            return None

    def encode(batch: np.ndarray) -> np.ndarray:
        import torch

        with model.encoding("the pictures"):
            pixels = list(pool.map(read, batch))
            inputs = torch.cat([blank if p is None else p for p in pixels]).to(model.device)
            vectors = pretrained.checked(_image_vectors(model, inputs), [item_file.name(row) for row in batch])
        vectors[[p is None for p in pixels]] = 0
        return vectors

    log.info(f"Picture encoder {name}, on {model.device.type}.")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        vectors = encode_resumably(_folder(item_file, digest), len(item_file), rows, batch_size, encode, "pictures")
    part = Part("image", name, vectors, digest.hexdigest())
    unreadable = rows[~part.present[rows]]
    if unreadable.size:
        log.warning(f"{len(unreadable):,} pictures cannot be read, the first is {files[unreadable[0]]}.")
    part.details["unreadable"] = len(unreadable)
    return part


def _find_pictures(folder: Path, item_file: ItemFile) -> dict[int, Path]:
    """Row → its picture. Raises: InputError if there is none at all, or two of one item."""
    row_of_item = {item_file.name(row): row for row in range(len(item_file))}
    found: dict[int, Path] = {}
    try:
        files = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"Pictures folder {folder} cannot be read: {error.strerror}.") from None
    for file in files:
        row = row_of_item.get(file.stem)
        if row is None or file.suffix.lower() not in PICTURES:
            continue
        if row in found:
            raise InputError(f"{folder} has two pictures of one item, {found[row].name} and {file.name}; keep one.")
        found[row] = file
    if not found:
        raise InputError(f"{folder} has no picture of any item, such as {item_file.name(0)}.jpg.")
    log.info(f"{folder}: pictures of {len(found):,} of {len(item_file):,} items.")
    return found


def _pixels(picture: Any, processor: Any) -> Any:
    """(1, 3, height, width): one at a time, so that no batch of full-sized pictures is ever in memory."""
    return processor(images=picture.convert("RGB"), return_tensors="pt")["pixel_values"]


def _image_vectors(model: pretrained.Pretrained, pixels_Bx3xHxW: Any) -> Any:
    if hasattr(model.model, "get_image_features"):
        return _tensor(model.model.get_image_features(pixel_values=pixels_Bx3xHxW))
    outputs = model.model(pixel_values=pixels_Bx3xHxW)
    if model.has_pooler and getattr(outputs, "pooler_output", None) is not None:
        return outputs.pooler_output.flatten(1)
    return outputs.last_hidden_state.mean(1)


def _folder(item_file: ItemFile, digest: Any) -> Path:
    return item_file.folder / ".embed" / digest.hexdigest()[:24]
