"""The page's file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from mmctr_jax.console import log
from mmctr_jax.errors import InputError
from mmctr_jax.files import write_atomically, writing
from mmctr_jax.pages.report.numbers import measure
from mmctr_jax.pages.report.scored_runs import read_runs
from mmctr_jax.pages.report.sections import TITLE, render

_ADVICE = "name another file with --out"


def report(directories: list[Path], out: Path) -> dict[str, Any]:
    """Writes the page on these runs to `out`, and returns its numbers.

    Raises: InputError where a run or `out` cannot be used; nothing is written then.
    """
    _check_output(out)
    measured = measure(read_runs(directories))
    html = render(measured)
    with writing(out, _ADVICE):
        write_atomically(out, html)
    for note in measured["notes"]:
        log.warning(f"Note: {note}")
    log.info(f"The page is {out}.")
    return measured


def _check_output(out: Path) -> None:
    if out.suffix != ".html":
        raise InputError(f"Output {out} must end in .html; {_ADVICE}.")
    if not out.parent.is_dir():
        raise InputError(f"Folder {out.parent} for the output does not exist; make it first.")
    with writing(out, _ADVICE):  # tried now, not after minutes of scoring
        tempfile.TemporaryFile(dir=out.parent).close()
        if out.exists() and f"<title>{TITLE}".encode() not in out.read_bytes()[:2000]:
            raise InputError(f"Output {out} is there, and no report; {_ADVICE}.")
