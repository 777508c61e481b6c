"""What a step on a CPU frees is kept for the next one: the system is not asked for the same pages again."""

import importlib.util
import os
import platform
import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")

PROGRAM = """
import sys, threading
from mmctr_jax.devices.allocation import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import resource
import numpy as np

def steps(count):
    for _ in range(count):
        for size in (1 << 20, 40 << 20, 150 << 20):  # beyond what malloc keeps by itself, in threads and at all
            np.ones(size, np.uint8)

steps_on_a_thread = threading.Thread(target=lambda: steps(2))  # as XLA's own are: not the main thread's arena
steps_on_a_thread.start()
steps_on_a_thread.join()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
again = threading.Thread(target=lambda: steps(5))
again.start()
again.join()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20)
"""


def megabytes_asked_for(how):
    """What five steps on a thread ask the system for, of 191 MB each."""
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # a page is a page
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@LINUX
@pytest.mark.skipif(importlib.util.find_spec("jax_plugins") is not None, reason="steps run on an accelerator")
def test_freed_memory_is_kept():
    assert megabytes_asked_for("kept") < 100
    assert megabytes_asked_for("given back") > 700  # what is kept without: nothing of the larger ones


@LINUX
@pytest.mark.parametrize(("command", "called"), [("train", ["1"]), ("predict", ["1"]), ("prepare", [])])
def test_commands_that_compute_ask_for_it_before_there_is_a_second_thread(command, called):
    program = f"""
import os
from mmctr_jax import cli
cli.keep_freed_memory = lambda: print(len(os.listdir("/proc/self/task")))
cli.run({command!r}, [])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "usage" in done.stderr  # nothing was asked of the command itself
    assert done.stdout.split() == called
