"""The one way in which benchmarks measure time, memory and the machine, and print what they found."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

Action = Callable[[], Any]
"""What is timed. JAX arrays that it returns are waited for."""


def print_machine() -> None:
    """One line: cores, and the versions of Python and of the libraries that do the work."""
    names = ("jax", "numpy", "pyarrow", "polars", "grain")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}", flush=True)


class Table:
    """A Markdown table that is printed as it grows."""

    def __init__(self, *columns: str):
        self.row(*columns)
        self.row(*["---"] * len(columns))

    def row(self, *cells: Any) -> None:
        """Prints one row."""
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def duration(seconds: float) -> str:
    """A time as people read it: `1.23 s` or `45.6 ms`."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.1f} ms"


def turns(*actions: Action, times: int) -> Iterator[list[float]]:
    """Seconds that each action takes, turn by turn: first, second, …, first, second, …"""
    for _ in range(times):
        taken = []
        for action in actions:
            start = time.perf_counter()
            jax.block_until_ready(action())
            taken.append(time.perf_counter() - start)
        yield taken


def in_turns(*actions: Action, times: int = 3, warm_up: bool = True) -> list[float]:
    """The median seconds of each of several actions that take turns, after one call of each that does not count."""
    if warm_up:
        list(turns(*actions, times=1))
    return np.median(list(turns(*actions, times=times)), axis=0).tolist()


def seconds(action: Action, times: int = 3, warm_up: bool = True) -> float:
    """The median seconds of an action."""
    return in_turns(action, times=times, warm_up=warm_up)[0]


def _least_seconds(action: Action) -> float:
    list(turns(action, times=1))
    return min(taken for (taken,) in turns(action, times=5))


def matrix_rate(precision: str = "highest", dtype: Any = np.float32, size: int = 4096) -> float:
    """FLOP/s of a product of two square matrices, here and now: the best of a few."""
    x = jax.random.normal(jax.random.PRNGKey(0), (size, size)).astype(dtype)
    product = jax.jit(lambda a, b: jax.numpy.dot(a, b, precision=precision))
    return 2 * size**3 / _least_seconds(lambda: product(x, x))


def copy_rate(megabytes: int = 1024) -> float:
    """Bytes/s, read and written, of adding 1 to an array in place: the best of a few."""
    n = megabytes * 2**18
    add = jax.jit(lambda x: x + 1, donate_argnums=0)
    box = [jax.numpy.zeros(n, np.float32)]

    def once() -> jax.Array:
        box[0] = add(box[0])
        return box[0]

    return 8 * n / _least_seconds(once)


def run_command(command: str, *arguments: object, **environment: str) -> str:
    """Runs `mmctr command …` and says its seconds and its peak resident memory. Raises RuntimeError if it fails."""
    start = time.perf_counter()
    whole = [sys.executable, "-m", "mmctr_jax", command, *map(str, arguments)]
    process = subprocess.Popen(whole, env=os.environ | environment)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with exit code {os.waitstatus_to_exitcode(status)}")
    return f"{time.perf_counter() - start:.0f} s, peak memory {usage.ru_maxrss * 1024 / 1e9:.2f} GB"


def in_new_process(function: Callable[[str], Any], argument: str | Path, **environment: str) -> str:
    """Calls a module's function in a fresh Python. Returns what it printed; raises CalledProcessError if it failed."""
    code = f"import {function.__module__} as module; module.{function.__name__}({str(argument)!r})"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE, text=True).stdout
