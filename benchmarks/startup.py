"""From starting Python to the first training step done, published sizes: cold, and with compiled programs kept."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run startup")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        return _child(Path(args.child))
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/programs"}
        command = [sys.executable, "-m", "benchmarks.run", "startup", "--child", folder]
        print("| | imports | model and state | first step | all |\n|---|---|---|---|---|")
        for name in ("cold", "programs kept"):
            start = time.time()
            output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            marks = [float(x) - start for x in output.splitlines()[-1].split()]
            parts = [b - a for a, b in zip([0, *marks], marks, strict=False)]
            print(f"| {name} | " + " | ".join(f"{x:.1f} s" for x in [*parts, marks[-1]]) + " |", flush=True)


def _child(folder: Path) -> None:
    from benchmarks.published import Ours, made_up_items, made_up_split, published_config

    imported = time.time()
    ours = Ours(published_config(), made_up_items())
    ours.state.step.block_until_ready()
    built = time.time()
    ours.train(made_up_split(folder, 128))
    print(imported, built, time.time())
