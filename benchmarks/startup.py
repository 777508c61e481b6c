"""From starting Python to the first training step done, published sizes: cold, and with compiled programs kept."""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Table, in_new_process


def main(argv: list[str]) -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.run startup").parse_args(argv)
    table = Table("", "imports", "model and state", "first step", "all")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("cold", "programs kept"):
            start = time.time()
            output = in_new_process(first_step, folder, JAX_COMPILATION_CACHE_DIR=f"{folder}/programs")
            marks = [float(mark) - start for mark in output.split()]
            parts = [b - a for a, b in zip([0, *marks], marks, strict=False)]
            table.row(name, *(f"{x:.1f} s" for x in [*parts, marks[-1]]))


def first_step(folder: str) -> None:
    """Prints when the libraries are imported, the model is on its devices, and the first step is done."""
    from benchmarks.generate import made_up_items, made_up_split
    from benchmarks.published import MeasuredModel, published_config

    imported = time.time()
    model = MeasuredModel(published_config(), made_up_items())
    model.state.step.block_until_ready()
    built = time.time()
    model.train(made_up_split(Path(folder), 128))
    print(imported, built, time.time())
