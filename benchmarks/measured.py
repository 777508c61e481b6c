"""A program of ours in a process of its own: how long it takes, and its memory at the highest."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def run_measured(command: str, *arguments: str | Path) -> str:
    """Runs `mmctr command …` and says its seconds and peak resident memory. Raises if it fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mmctr_jax", command, *map(str, arguments)])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with exit code {os.waitstatus_to_exitcode(status)}")
    return f"{time.perf_counter() - start:.0f} s, peak memory {usage.ru_maxrss * 1024 / 1e9:.2f} GB"
