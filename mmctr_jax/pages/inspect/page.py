"""The two files: inspect.html and, with the same numbers, inspect.json."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from mmctr_jax.console import log
from mmctr_jax.errors import InputError
from mmctr_jax.files import write_atomically, writing
from mmctr_jax.pages.inspect.folder import read_folder
from mmctr_jax.pages.inspect.numbers import measure
from mmctr_jax.pages.inspect.sections import render
from mmctr_jax.pages.inspect.warn import find_warnings

_ADVICE = "name another folder with --out"


def inspect(folder: Path, config: Path | None, out: Path) -> dict[str, Any]:
    """Measures the data in `folder`, writes inspect.html and inspect.json to `out`, and returns what the latter has.

    Columns are those of `config`; without one, of the one that prepare wrote, else the default ones that are there.
    Raises: InputError where data, config or `out` cannot be used; nothing is written then.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name one with train.parquet, valid.parquet and item_info.parquet.")
    with writing(out, _ADVICE):  # tried now, not after minutes of reading
        there = next(path for path in (out, *out.parents) if path.exists())
        tempfile.TemporaryFile(dir=there).close()
    measured = measure(read_folder(folder, config))
    found = {"warnings": find_warnings(measured)} | measured
    numbers = json.dumps(found, indent=1, allow_nan=False) + "\n"
    html = render(found)
    with writing(out, _ADVICE):
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / "inspect.json", numbers)
        write_atomically(out / "inspect.html", html)
    for warning in found["warnings"]:
        log.warning(f"Warning: {warning['text']}")
    if not found["warnings"]:
        log.info("Nothing to warn about.")
    log.info(f"The page is {out / 'inspect.html'}; its numbers are in inspect.json beside it.")
    return found
