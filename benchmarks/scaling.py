"""Cost per sample against history length, batch size, number of items and number of devices."""

import argparse
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.flops import N
from benchmarks.generate import generated_split
from benchmarks.published import Ours, made_up_batch, made_up_items, made_up_split, published_config, seconds
from mmctr_jax.data.loader import train_batches
from mmctr_jax.devices.collectives import collectives
from mmctr_jax.devices.sharding import make_mesh, on_devices, placed, put_replicated, split_rows
from mmctr_jax.training.step import abstract_state, init_state, make_train_step

SMALL = {"embedding_dim": 16, "transformer": {"feedforward": 64, "first_k": 4}, "dcn": {"deep": [256, 128]}}


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run scaling")
    parser.add_argument("--against", choices=["length", "batch", "items", "devices", "sharding"], required=True)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.against in ("devices", "sharding") and not args.child:
        flags = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
        command = [sys.executable, "-m", "benchmarks.run", "scaling", "--against", args.against, "--child"]
        subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, check=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        kinds = {"length": _length, "batch": _batch, "items": _items, "devices": _devices, "sharding": _sharding}
        kinds[args.against](Path(folder))


def _time(ours: Ours, split) -> float:
    ours.train(split)
    return seconds(lambda: ours.train(split), 3)


def _length(folder: Path) -> None:
    print("published sizes, batch 256\n\n| clicks of every history | ms a sample |\n|---|---|")
    ours = Ours(published_config(train={"batch_size": 256, "length_buckets": [1, 2, 4, 8, 16, 32]}), made_up_items())
    for length in (1, 2, 4, 8, 16, 32, 64):
        split = generated_split(folder, 1024, np.full(1024, length))
        print(f"| {length} | {_time(ours, split) / 1024 * 1e3:.2f} |", flush=True)


def _batch(folder: Path) -> None:
    print("published sizes, histories of 8 clicks\n\n| batch | ms a sample |\n|---|---|")
    for batch_size in (64, 128, 256, 512, 1024, 2048):
        rows = max(2048, 4 * batch_size)
        ours = Ours(published_config(train={"batch_size": batch_size, "length_buckets": [8]}), made_up_items())
        split = generated_split(folder, rows, np.full(rows, 8))
        print(f"| {batch_size} | {_time(ours, split) / rows * 1e3:.2f} |", flush=True)
        del ours


def _items(folder: Path) -> None:
    print("embeddings of 16, frozen vectors of 128, batch 1024, histories of 8 clicks\n")
    print("| items | GB of state and items | ms a step | of it, beyond 10,000 items' |\n|---|---|---|---|")
    base = None
    for items in (10**4, 10**5, 10**6, 10**7):
        train = {"batch_size": 1024, "length_buckets": [8]}
        ours = Ours(published_config(items, train=train, **SMALL), made_up_items(items))
        time = _time(ours, generated_split(folder, 4096, np.full(4096, 8), items=items)) / 4
        base = base or time
        size = sum(x.nbytes for x in jax.tree.leaves((ours.state, ours.items))) / 1e9
        print(f"| {items:,} | {size:.2f} | {time * 1e3:.0f} | {max(0, 1 - base / time):.0%} |", flush=True)
        del ours


def _devices(folder: Path) -> None:
    """Simulated ones share the two cores: what is shown is that they do the same, and what they exchange."""
    print("reduced sizes, batch 64, dropout on\n")
    print("| devices | losses of 8 steps: largest difference | collectives, and how many numbers |\n|---|---|---|")
    config = published_config(train={"batch_size": 64}, **SMALL)
    items, split, first = made_up_items(), made_up_split(folder, 512), None
    for devices in (1, 2, 4, 8):
        mesh = make_mesh(jax.devices()[:devices])
        on_device = put_replicated(items, mesh)
        state, step, losses = init_state(config, on_device, mesh), make_train_step(config, mesh), []
        for batch in on_devices(train_batches(split, batch_size=64, lengths=(N,), seed=1, epochs=1), mesh):
            arguments = state, batch, on_device, np.float32(5e-4)
            if not losses:
                found = collectives(step.lower(*arguments).compile().as_text())
            state, metrics = step(*arguments)
            losses.append(float(metrics["loss"]))
        first = first or losses
        exchanged = ", ".join(f"{kind}: {n:,}" for kind, n in found) or "none"
        print(f"| {devices} | {np.abs(np.subtract(losses, first)).max():.1e} | {exchanged} |", flush=True)
    print(f"\n{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters.")


def _sharding(folder: Path) -> None:
    """By the compiled program alone, as nothing of this size is run on eight devices here."""
    print("published sizes, batch 1024, histories of 8, eight devices; GB on each of them\n")
    print("| sharding | parameters, moments | item table | temporary | exchanged in a step |\n|---|---|---|---|---|")
    mesh = make_mesh()
    for sharding in ("replicated", "fsdp"):
        config = published_config(train={"batch_size": 1024, "sharding": sharding})
        items = {}
        for name, x in made_up_items().items():
            shape = config.table_rows(len(x)), *x.shape[1:]
            items[name] = jax.ShapeDtypeStruct(shape, x.dtype, sharding=placed(shape, mesh, sharding))
        state = abstract_state(config, items, mesh)
        batch = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split_rows(mesh))
            for name, x in made_up_batch(1024, 8).items()
        }
        rate = jax.ShapeDtypeStruct((), np.float32)
        program = make_train_step(config, mesh).lower(state, batch, items, rate).compile()
        exchanged: dict[str, int] = {}
        for kind, n in collectives(program.as_text()):
            exchanged[kind] = exchanged.get(kind, 0) + n
        cells = ", ".join(f"{kind} {4 * n / 1e9:.2f}" for kind, n in exchanged.items())
        sizes = [_gigabytes_on_one(tree) for tree in (state, items)]
        sizes.append(program.memory_analysis().temp_size_in_bytes / 1e9)
        print(f"| {sharding} | {' | '.join(f'{size:.2f}' for size in sizes)} | {cells} |", flush=True)


def _gigabytes_on_one(tree: Any) -> float:
    shapes = [(x.sharding.shard_shape(x.shape), x.dtype.itemsize) for x in jax.tree.leaves(tree)]
    return sum(math.prod(shape) * size for shape, size in shapes) / 1e9
