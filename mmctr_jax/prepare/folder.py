"""The prepared folder: its manifest, and the ready config that goes with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmctr_jax.errors import InputError
from mmctr_jax.files import write_atomically

FORMAT = 1
_MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What prepare wrote; None in a folder that it did not write. Raises InputError if it cannot be read."""
    path = folder / _MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT:
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is not as `python -m mmctr_jax.prepare` writes it; prepare the data again.")


def write(where: Path, folder: Path, manifest: dict[str, Any]) -> None:
    """Manifest and config into `where`, which is or will become `folder`."""
    write_atomically(where / f"{folder.name}.yaml", config_text(folder, manifest))
    write_atomically(where / _MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def record_embedding(folder: Path, embedding: dict[str, Any]) -> None:
    """Notes in the manifest what `embed` wrote to item_info, and adds the column to the config.

    A config that was changed since it was written is left as it is. embedding: at least `column` and `dim`.
    """
    before = read_manifest(folder)
    after = before | {"embedding": embedding}
    config = folder / f"{folder.name}.yaml"
    if config.is_file() and config.read_text(encoding="utf-8") == config_text(folder, before):
        write_atomically(config, config_text(folder, after))
    write_atomically(folder / _MANIFEST, json.dumps(after, indent=1, ensure_ascii=False) + "\n")


def config_text(folder: Path, manifest: dict[str, Any]) -> str:
    """A training config for the folder, at sizes that a CPU trains."""
    p90 = manifest["splits"]["train"]["history_p90"]
    longest = min(max(4, -(-p90 // 4) * 4), manifest["options"]["history"], 32)
    item_features = ["    - {kind: tags, name: item_tags}"] if manifest["tags"] else []
    if manifest["embedding"]:
        column, dim = manifest["embedding"]["column"], manifest["embedding"]["dim"]
        item_features.append(f"    - {{kind: embedding, name: {column}, dim: {dim}}}")
    side = [f"    - {{name: {json.dumps(f['name'])}, vocab_size: {f['vocab_size']}}}" for f in manifest["side"]]
    files = {"train": "train", "valid": "valid", "test": "test", "test_labels": "test_labels", "item_info": "item_info"}
    lines = [
        "# Written by `python -m mmctr_jax.prepare`; yours to change.",
        f"#   python train.py --config {folder / f'{folder.name}.yaml'}",
        f"#   python predict.py --ckpt runs/{folder.name}",
        "data:",
        *(f"  {key}: {json.dumps(str(folder / f'{name}.parquet'), ensure_ascii=False)}" for key, name in files.items()),
        "features:",
        *(["  weight: weight"] if manifest["weight"] else []),
        "  side:" if side else "  side: []",
        *side,
        "  item_features:" if item_features else "  item_features: []",
        *item_features,
        "model: # small, for a CPU; without this section: the published sizes, for a GPU",
        "  embedding_dim: 16",
        f"  max_history: {longest} # nine in ten training histories have at most {p90} clicks",
        f"  transformer: {{layers: 1, feedforward: 64, first_k: {min(4, longest)}}}",
        "  dcn: {deep: [128, 64]}",
        "train:",
        "  batch_size: 256",
        "  epochs: 10",
        "  patience: 2",
    ]
    return "\n".join(lines) + "\n"
