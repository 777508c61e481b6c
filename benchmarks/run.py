"""python -m benchmarks.run NAME … — each prints machine, versions and figures."""

import argparse
import importlib
import importlib.metadata
import os
import platform
import sys

NAMES = (
    *("derived", "embed", "epoch", "inspect", "limit", "loader", "memory", "new_items", "peer", "prepare", "savings"),
    *("scaling", "startup", "step"),
)


def print_machine() -> None:
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}" for name in ("jax", "numpy", "pyarrow", "polars", "grain")
    )
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("name", choices=NAMES)
    args = parser.parse_args(sys.argv[1:2])
    print_machine()
    importlib.import_module(f"benchmarks.{args.name}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
