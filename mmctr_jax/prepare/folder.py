"""The prepared folder: its manifest, and the ready config that goes with it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mmctr_jax.errors import InputError
from mmctr_jax.files import write_atomically

FORMAT = 1
MANIFEST = "manifest.json"


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a prepared folder; None in a folder without one. Raises: InputError if it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["format"] == FORMAT:
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path} is not as `mmctr prepare` writes it; prepare the data again.")


def config_path(folder: Path, manifest: dict[str, Any]) -> Path:
    """The ready config in `folder`, even where that was moved since."""
    return folder / f"{Path(manifest['folder']).name}.yaml"


def is_manifest(path: Path) -> bool:
    """Whether a file in a prepared folder is its manifest."""
    return path.name == MANIFEST


def write(where: Path, manifest: dict[str, Any]) -> None:
    """Writes manifest and config into `where`, which is or will become the manifest's `folder`."""
    write_atomically(config_path(where, manifest), config_text(manifest))
    write_atomically(where / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def record_embedding(folder: Path, embedding: dict[str, Any]) -> bool:
    """Records in the manifest what `embed` wrote to item_info, and adds the column to the ready config.

    A config that was changed since it was written is left as it is.

    Args:
      embedding: at least `column` and `dim`.
    Returns: whether the config has the column now.
    """
    before = read_manifest(folder)
    after = before | {"embedding": embedding}
    config = config_path(folder, before)
    ours = [_settings(config_text(manifest)) for manifest in (before, after)]
    untouched = config.is_file() and _settings(config.read_text(encoding="utf-8")) in ours
    if untouched:
        write_atomically(config, config_text(after))
    write_atomically(folder / MANIFEST, json.dumps(after, indent=1, ensure_ascii=False) + "\n")
    return untouched


def _settings(text: str) -> list[str]:
    """A config's lines without those that are comments: another version writes other ones."""
    return [line for line in text.splitlines() if not line.startswith("#")]


_FEW = 300_000  # training rows


def by_size(rows: int) -> tuple[int, float, float]:
    """Batch size, weight decay of the tables and decay of the average for so many training rows (docs/accuracy.md).

    Large batches are faster, but an epoch needs some hundred steps; with few rows, ids are learned by heart, and an
    average of more steps is better.
    """
    return (256, 3.0, 0.998) if rows < _FEW else (1024, 0.5, 0.99)


_MANY_IDS = 10**6  # from which a step that passes over all rows of all tables is slower than one that looks for its own


def _ids(manifest: dict[str, Any]) -> int:
    """Rows of all embedding tables together."""
    columns = [f for place in ("side", "clicks", "item_features") for f in manifest.get(place, [])]
    return manifest["items"] + manifest["tags"] + sum(f.get("vocab_size") or 0 for f in columns)


def _flow(settings: dict[str, Any]) -> str:
    """Settings on one line of YAML."""
    parts = {
        name: value if name == "kind" else json.dumps(value, ensure_ascii=False) for name, value in settings.items()
    }
    return "{" + ", ".join(f"{_key(name)}: {text}" for name, text in parts.items()) + "}"


def _key(name: str) -> str:
    """A column may have any name, and `null` or `1e3` would be no text to YAML."""
    plain = re.fullmatch(r"[A-Za-z_]\w*", name) and name.lower() not in ("true", "false", "null")
    return name if plain else json.dumps(name, ensure_ascii=False)


def _feature(settings: dict[str, Any], reasons: dict[str, str]) -> str:
    """A line of a list of features, with the reason for what nobody asked for."""
    line = f"    - {_flow(settings)}"
    reason = reasons.get(settings["name"].removeprefix("click_"))
    return f"{line} # {reason}" if reason else line


def max_history(manifest: dict[str, Any]) -> int:
    """N of the ready config: enough for nine in ten histories, in steps of 4; or that of an earlier preparation."""
    enough = max(4, -(-manifest["splits"]["train"]["history_p90"] // 4) * 4)
    return manifest.get("max_history") or min(enough, manifest["options"]["history"], 32)


def _patience(manifest: dict[str, Any]) -> str:
    """Of the ready config. A model that goes on from yesterday's is at its best after one epoch or two."""
    return "1 # with --init-from the first epoch is mostly the best" if manifest.get("like") else "2"


def config_text(manifest: dict[str, Any]) -> str:
    """The YAML of a training config for the folder: the model that won on real clicks, see docs/accuracy.md."""
    folder, name = manifest["folder"], Path(manifest["folder"]).name
    p90 = manifest["splits"]["train"]["history_p90"]
    longest, why = max_history(manifest), f"nine in ten training histories have at most {p90} clicks"
    if manifest.get("max_history"):
        why = f"as in {manifest['like']}"
    elif p90 > longest:
        why += "; longer ones take more time than they are worth"
    item_features = ["    - {kind: tags, name: item_tags}"] if manifest["tags"] else []
    reasons = manifest.get("reasons", {})
    side, clicks, of_items = (
        [_feature(f, reasons) for f in manifest.get(place, [])] for place in ("side", "clicks", "item_features")
    )
    item_features += of_items
    if manifest["embedding"]:
        column, dim = manifest["embedding"]["column"], manifest["embedding"]["dim"]
        item_features.append(f"    - {{kind: embedding, name: {column}, dim: {dim}}}")
    batch_size, weight_decay, ema = by_size(manifest["splits"]["train"]["rows"])
    tables = (
        ["  tables: adam # a step reads and writes the rows of its batch alone"] if _ids(manifest) >= _MANY_IDS else []
    )
    files = ("train", "valid", "test", "test_labels", "item_info")
    lines = [
        "# Written by `mmctr prepare`; yours to change.",
        f"#   mmctr train --config {folder}/{name}.yaml",
        f"#   mmctr predict --ckpt runs/{name}",
        "data:",
        *(f"  {file}: {json.dumps(f'{folder}/{file}.parquet', ensure_ascii=False)}" for file in files),
        "features:",
        *(["  weight: weight"] if manifest["weight"] else []),
        *([f"  labels: {_flow(manifest['labels'])}"] if manifest.get("labels") else []),
        "  side:" if side else "  side: []",
        *side,
        *(["  clicks:", *clicks] if clicks else []),
        "  item_features:" if item_features else "  item_features: []",
        *item_features,
        "model: # without this section: the published model at its published sizes, for a GPU",
        "  name: matching",
        f"  max_history: {longest} # {why}",
        "train:",
        f"  batch_size: {batch_size}",
        "  learning_rate: 1e-3",
        f"  weight_decay: {{tables: {weight_decay:g}}}",
        *tables,
        f"  ema: {ema:g}",
        "  epochs: 10",
        f"  patience: {_patience(manifest)}",
    ]
    return "\n".join(lines) + "\n"
