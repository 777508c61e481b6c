"""What a step on a CPU frees is kept for the next one: the system is not asked for the same pages again."""

import os
import platform
import subprocess
import sys

import pytest

LINUX = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is not glibc's")

PROGRAM = """
import importlib.util, sys, threading
from mmctr_jax.devices.allocation import keep_freed_memory
importlib.util.find_spec = {"accelerator": lambda name: name, "cpu": lambda name: None}[sys.argv[1]]
keep_freed_memory()
import resource
import numpy as np

def steps(count):
    for _ in range(count):
        for size in (1 << 20, 40 << 20, 150 << 20):  # beyond what malloc keeps by itself, in threads and at all
            np.ones(size, np.uint8)

def on_a_thread(count):  # as XLA's own are: not the main thread's arena
    thread = threading.Thread(target=steps, args=(count,))
    thread.start()
    thread.join()

on_a_thread(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
on_a_thread(5)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() >> 20)
"""


def megabytes_asked_for(where):
    """What five steps on a thread ask the system for, of 191 MB each."""
    environment = os.environ | {"NUMPY_MADVISE_HUGEPAGE": "0"}  # a page is a page
    command = [sys.executable, "-c", PROGRAM, where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@LINUX
def test_freed_memory_is_kept_where_steps_are_computed_in_it():
    assert megabytes_asked_for("cpu") < 100
    assert megabytes_asked_for("accelerator") > 700  # malloc as it is: nothing of the larger arrays is kept


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
