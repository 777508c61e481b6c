"""Memory that a step of training on a CPU frees, kept by the process for its next step."""

from __future__ import annotations

import importlib.util
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST = 2**31 - 1  # bytes, the largest value that mallopt takes


def keep_freed_memory() -> None:
    """Lets malloc keep what is freed, up to 2 GB, instead of giving it back to the system.

    XLA allocates a step's temporary arrays anew for each step, on its own threads. By default malloc asks the system
    for each large one, page by page, and what threads free goes back at once: up to a third of a step's time. One arena
    for all threads, as only the first one keeps anything. Must come before there is a second thread. Where JAX has an
    accelerator, steps are not computed in this memory, and where malloc is not glibc's, it is left as it is.
    """
    if sys.platform != "linux" or importlib.util.find_spec("jax_plugins") is not None:
        return
    import ctypes  # not above: every command imports this file

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
