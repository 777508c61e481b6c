"""python -m benchmarks.run NAME … — each prints machine, versions and figures."""

import argparse
import importlib
import sys

from mmctr_jax.devices.allocation import keep_freed_memory

NAMES = (
    *("derived", "embed", "epoch", "gpu", "gpu-program", "input", "inspect", "kernels", "limit", "loader", "memory"),
    *("new_items", "peer", "prepare", "replay", "savings", "rivals", "scaling", "serve", "shop", "startup", "step"),
)


def main() -> None:
    """Runs the benchmark of the name; the rest of the command line is the benchmark's own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    args = parser.parse_args(sys.argv[1:2])
    keep_freed_memory()  # as the commands do, before a library starts threads
    importlib.import_module("benchmarks.harness").print_machine()
    importlib.import_module(f"benchmarks.{args.name.replace('-', '_')}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
