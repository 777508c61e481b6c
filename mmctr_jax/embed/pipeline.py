"""From a folder's texts and pictures to a column of its item_info.parquet."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from mmctr_jax.console import log
from mmctr_jax.embed import encoders
from mmctr_jax.embed.fusion import fuse
from mmctr_jax.embed.item_file import ItemFile, read_item_file
from mmctr_jax.embed.item_info import read_item_info
from mmctr_jax.embed.parts import Part
from mmctr_jax.embed.precomputed import file_and_column, precomputed_part
from mmctr_jax.embed.tfidf import tfidf_part
from mmctr_jax.errors import InputError
from mmctr_jax.prepare.folder import record_embedding


def embed(
    folder: Path,
    text: str | None = None,
    image: str | None = None,
    pictures: Path | None = None,
    rows_of: str | None = None,
    dim: int = 128,
    whiten: bool = False,
    l2: Collection[str] = (),
    batch_size: int = 64,
    download: bool = False,
    out: Path | None = None,
) -> dict[str, Any]:
    """Writes the column item_emb_d{dim} to item_info.parquet, and items_without_embedding.csv.

    Args:
      folder: with item_feature.parquet and item_info.parquet.
      text: source of vectors of the titles: "tfidf", a file (see `precomputed`) or a model (see `encoders`); None:
        "tfidf" if `image` is None too, else no texts.
      image: source of vectors of pictures: a file or a model.
      pictures: folder of the items' pictures, for a model.
      rows_of: what says which item each row of a .npy is of, see `precomputed`.
      dim: width of the result.
      whiten, l2: as in `fusion.fuse`.
      batch_size: texts or pictures that a model encodes at once.
      download: whether a model may be fetched from the Hugging Face hub.
      out: file to write instead of the folder's item_info.parquet.
    Returns: what the manifest records of it.
    Raises: InputError; nothing is written then, except encodings, which are kept in `folder`/.embed.
    """
    if text is None and image is None:
        text = "tfidf"
    item_file = read_item_file(folder)
    column = f"item_emb_d{dim}"
    info = read_item_info(item_file, column, out)
    parts = []
    if text is not None:
        parts.append(_text_part(item_file, text, rows_of, dim, batch_size, download))
    if image is not None:
        parts.append(_image_part(item_file, image, rows_of, pictures, batch_size, download))
    for part in parts:
        if not part.present.any():
            raise InputError(f"--{part.kind} {part.source} gives no item a vector: all are zero.")
    fused = fuse(parts, item_file.training, dim, whiten, l2)
    info.write(fused.vectors)
    without = info.write_missing(item_file, parts)
    embedding = {
        "column": column,
        "dim": dim,
        "parts": [_describe(part) for part in parts],
        "explained_variance": fused.explained_variance,
        "whiten": whiten,
        "l2": sorted(l2),
        "fitted_on": {"items": fused.fitted_items, "training_only": item_file.manifest is not None},
        "without_embedding": len(without),
        "sources": {part.kind: part.sha256 for part in parts},
    }
    in_config = item_file.manifest is not None and out is None and record_embedding(folder, embedding)
    _report(embedding, len(item_file), without, info.path, in_config)
    return embedding


def _text_part(
    item_file: ItemFile, source: str, rows_of: str | None, dim: int, batch_size: int, download: bool
) -> Part:
    if source == "tfidf":
        return tfidf_part(item_file, dim)
    if file_and_column(source):
        return precomputed_part(item_file, "text", source, rows_of)
    return encoders.text_part(item_file, source, batch_size, download)


def _image_part(
    item_file: ItemFile, source: str, rows_of: str | None, pictures: Path | None, batch_size: int, download: bool
) -> Part:
    if file_and_column(source):
        return precomputed_part(item_file, "image", source, rows_of)
    if pictures is None:
        raise InputError(f"--image {source} is a model and needs --pictures, the folder of the items' pictures.")
    return encoders.image_part(item_file, source, pictures, batch_size, download)


def _describe(part: Part) -> dict[str, Any]:
    missing = int((~part.present).sum())
    return {"kind": part.kind, "source": part.source, "width": part.width, "missing": missing, **part.details}


def _report(embedding: dict[str, Any], items: int, without: list[str], path: Path, in_config: bool) -> None:
    for part in embedding["parts"]:
        log.info(
            f"{part['kind'].capitalize()} from {part['source']}: width {part['width']}, "
            f"{items - part['missing']:,} of {items:,} items have one, {part['missing']:,} have zeros."
        )
    if without:
        names = ", ".join(without[:10]) + (", …" if len(without) > 10 else "")
        log.warning(f"{len(without):,} items are without any embedding, their vectors are zero: {names}.")
    fitted = embedding["fitted_on"]
    which = "training items" if fitted["training_only"] else "items"
    kept = f"keeps {embedding['explained_variance']:.1%} of their variance"
    log.info(f"PCA to {embedding['dim']}, fitted on {fitted['items']:,} {which}, {kept}.")
    log.info(f"{embedding['column']} is in {path}; items_without_embedding.csv beside it lists what items lack.")
    line = f"- {{kind: embedding, name: {embedding['column']}, dim: {embedding['dim']}}}"
    log.info(f"The folder's config uses it: {line}" if in_config else f"Add it to your config's item_features: {line}")
