import os
import shutil
import tempfile
from pathlib import Path

from compiling import SOON

# Eight simulated devices for every test; must be set before JAX starts.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {SOON}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most tests, and the programs they start, train the same few tiny models: compile each once for all workers.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="mmctr_tests_")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

import jax
import pytest
from programs import share_programs
from stores import server, store  # noqa: F401 fixtures of several files
from synthetic import write_dataset

from mmctr_jax.console import start_logging

# Files of few tests that take long, first: so that workers end together.
LONG = ("test_training", "test_hosts", "test_kill", "test_faults", "test_sharding", "test_cli", "test_savings")
LONG += (
    "test_compare",
    "test_report",
    "test_export",
    "test_torch_reference",
    "test_step",
    "test_convert",
    "test_tune",
    "test_columns",
)

# Files whose programs are compiled as they are for users, see `compiling`.
OPTIMISED = ("test_golden",)


@pytest.fixture(scope="module", autouse=True)
def _compiling(request):
    jax.config.update("jax_disable_most_optimizations", request.path.stem not in OPTIMISED)


@pytest.fixture
def optimised():
    """For single tests that read the compiled program."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


@pytest.fixture(scope="session", autouse=True)
def _session():
    start_logging()
    share_programs()


def pytest_unconfigure():
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """A small data set, not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))
