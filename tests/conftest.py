import os
import sys
from pathlib import Path

# Eight simulated devices for every test; must be set before JAX starts.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import jax  # noqa: E402
import pytest  # noqa: E402
from synthetic import write_dataset  # noqa: E402

from mmctr_jax.console import start_logging  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def _session(tmp_path_factory):
    start_logging()
    # Most tests train the same few tiny models: compile each once.
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """A small data set, not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))
