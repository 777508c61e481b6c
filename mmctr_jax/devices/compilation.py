"""What JAX compiles: kept between runs, and deterministic where that is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path

from mmctr_jax import interrupt


def keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles for the next run, where the environment (JAX_COMPILATION_CACHE_DIR) says, or else
    in the user's cache folder.

    There a folder for each kind of CPU: a program compiled for another one may end in an illegal instruction.
    """
    with interrupt.deferred():
        import jax  # not above: a program that ends with its arguments need not wait for it

    if jax.config.jax_compilation_cache_dir is not None:
        return
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")  # as x86 and ARM say it
    kind = hashlib.sha256(features.encode()).hexdigest()[:12]
    with contextlib.suppress(OSError, RuntimeError):  # no such place here: then every run compiles
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "mmctr_jax" / f"{platform.machine()}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            # JAX's second would leave out what `predict` needs for a small model: a fifth of the time of a small file.
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def make_deterministic() -> None:
    """Lets XLA choose only GPU programs that give the same bits every time. Must come before any other use of JAX."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()
