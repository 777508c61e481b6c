"""Cost per sample against history length, batch size, number of items and number of devices."""

import argparse
import math
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from benchmarks.flops import N
from benchmarks.generate import made_up_batch, made_up_items, made_up_split, split_of, write_folder
from benchmarks.harness import Action, Table, in_turns, seconds
from benchmarks.published import LEARNING_RATE, PUBLISHED, MeasuredModel, published_config
from mmctr_jax.config import Config
from mmctr_jax.data.loader import train_batches
from mmctr_jax.devices.collectives import collectives
from mmctr_jax.devices.sharding import (
    make_mesh,
    on_devices,
    placed,
    put_batch,
    put_items,
    put_replicated,
    rows_for_items,
    split_rows,
)
from mmctr_jax.models.matching import MatchingSettings
from mmctr_jax.training.step import abstract_state, init_state, make_train_step

SMALL = (
    *("model.embedding_dim=16", "model.transformer.feedforward=64", "model.transformer.first_k=4"),
    "model.dcn.deep=[256, 128]",
)


def main(argv: list[str]) -> None:
    measures = {"length": _length, "batch": _batch, "items": _items, "devices": _devices, "sharding": _sharding}
    measures |= {"rows": _rows, "tables": _tables, "hosts": _hosts}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run scaling")
    parser.add_argument("--against", choices=list(measures), required=True)
    args = parser.parse_args(argv)
    if args.against in ("devices", "sharding"):
        jax.config.update("jax_num_cpu_devices", 8)  # simulated
    if args.against == "tables":
        jax.config.update("jax_num_cpu_devices", 64)
    with tempfile.TemporaryDirectory() as folder:
        measures[args.against](Path(folder))


def _epoch(folder: Path, length: int, rows: int, *overrides: str, items: int | None = None) -> tuple[float, float]:
    """Seconds of an epoch of histories of one length, and the GB of state and items."""
    table = made_up_items(items) if items else made_up_items()
    model = MeasuredModel(published_config(*overrides), table)
    split = split_of(folder, np.full(rows, length), items=len(table["item_tags"]))
    time = seconds(lambda: model.train(split))
    return time, sum(x.nbytes for x in jax.tree.leaves((model.state, model.items))) / 1e9


def _length(folder: Path) -> None:
    print("published sizes, batch 256\n")
    table, rows = Table("clicks of every history", "ms a sample"), 1024
    for length in (1, 2, 4, 8, 16, 32, 64):
        time, _ = _epoch(folder, length, rows, "train.batch_size=256", "train.length_buckets=[1, 2, 4, 8, 16, 32]")
        table.row(length, f"{time / rows * 1e3:.2f}")


def _batch(folder: Path) -> None:
    print("published sizes, histories of 8 clicks\n")
    table = Table("batch", "ms a sample")
    for batch_size in (64, 128, 256, 512, 1024, 2048):
        rows = max(2048, 4 * batch_size)
        time, _ = _epoch(folder, 8, rows, f"train.batch_size={batch_size}", "train.length_buckets=[8]")
        table.row(batch_size, f"{time / rows * 1e3:.2f}")


def _items(folder: Path) -> None:
    print("embeddings of 16, frozen vectors of 128, batch 1024, histories of 8 clicks\n")
    table = Table("train.tables", "items", "GB of state and items", "ms a step", "times that of 10,000 items")
    for optimizer in ("null", "adam", "rowwise_adagrad"):
        base = None
        for items in (10**4, 10**5, 10**6, 10**7):
            overrides = f"features.num_items={items}", "train.batch_size=1024", "train.length_buckets=[8]", *SMALL
            time, size = _epoch(folder, 8, 4096, f"train.tables={optimizer}", *overrides, items=items)
            base = base or time
            table.row(optimizer, f"{items:,}", f"{size:.2f}", f"{time / 4 * 1e3:.0f}", f"{time / base:.2f}")


def _devices(folder: Path) -> None:
    """Simulated ones share the two cores: what is shown is that they do the same, and what they exchange."""
    print("reduced sizes, batch 64, dropout on\n")
    table = Table("devices", "losses of 8 steps: largest difference", "collectives, and how many numbers")
    config = published_config("train.batch_size=64", *SMALL)
    items, split, first = made_up_items(), made_up_split(folder, 512), None
    for devices in (1, 2, 4, 8):
        mesh = make_mesh(jax.devices()[:devices])
        on_device = put_replicated(items, mesh)
        state, step, losses = init_state(config, on_device, mesh), make_train_step(config, mesh), []
        for batch in on_devices(train_batches(split, batch_size=64, lengths=(N,), seed=1, epochs=1), mesh):
            arguments = state, batch, on_device, LEARNING_RATE
            if not losses:
                found = collectives(step.lower(*arguments).compile().as_text())
            state, metrics = step(*arguments)
            losses.append(float(metrics["loss"]))
        first = first or losses
        exchanged = ", ".join(f"{kind}: {n:,}" for kind, n in found) or "none"
        table.row(devices, f"{np.abs(np.subtract(losses, first)).max():.1e}", exchanged)
    print(f"\n{sum(x.size for x in jax.tree.leaves(state.params)):,} parameters.")


def _sharding(folder: Path) -> None:
    """By the compiled program alone, as nothing of this size is run on eight devices here."""
    print("published sizes, batch 1024, histories of 8, eight devices; GB on each of them\n")
    table = Table("sharding", "parameters, moments", "item table", "temporary", "exchanged in a step")
    mesh = make_mesh()
    for sharding in ("replicated", "fsdp"):
        config = published_config("train.batch_size=1024", f"train.sharding={sharding}")
        items = put_items(made_up_items(), mesh, config)
        sizes, exchanged, _ = _program(config, items, mesh, 8)
        cells = ", ".join(f"{kind} {4 * n / 1e9:.2f}" for kind, n in exchanged.items())
        table.row(sharding, *(f"{size:.2f}" for size in sizes), cells)


def _rows(folder: Path) -> None:
    """Optimisers of tables beside one another, in turns; clicks by Zipf's law, so that rows are named again."""
    print("the matching model, ids 64 wide, an average of weights, weight decay of the tables; ms a step\n")
    optimizers = "null", "adam", "lazy_adam"
    table, rng = Table("batch", "clicks", "items", *optimizers), np.random.default_rng(0)
    for batch_size, clicks, items in ((256, 32, 10**4), (1024, 8, 10**4), (1024, 8, 10**5), (1024, 8, 10**6)):
        batches = [made_up_batch(batch_size, clicks) for _ in range(8)]
        for batch in batches:
            for name in ("history", "item"):
                drawn = rng.zipf(1.3, batch[name].shape) % (items - 1) + 1
                batch[name] = drawn.astype(np.int32)
        item_table = made_up_items(items)

        def steps(optimizer: str, batches: list = batches, item_table: dict = item_table) -> Action:
            overrides = "train.ema=0.99", "train.weight_decay.tables=0.5", f"train.tables={optimizer}"
            config = published_config(f"features.num_items={len(item_table['item_tags'])}", *overrides)
            config = config.model_copy(update={"model": MatchingSettings(embedding_dim=64, max_history=N)})
            model = MeasuredModel(config, item_table)
            ready = [put_batch(batch, model.mesh) for batch in batches]
            return lambda: [model.step(batch) for batch in ready][-1].block_until_ready()

        times = in_turns(*map(steps, optimizers), times=5)
        table.row(batch_size, clicks, f"{items:,}", *(f"{time / len(batches) * 1e3:.0f}" for time in times))


def _tables(folder: Path) -> None:
    """By shapes and the compiled program alone: nothing of these sizes is allocated."""
    print("the matching model, ids 64 wide, frozen vectors of 128, batch 4,096, 16 clicks, fsdp, an average of weights")
    print("GB on each device\n")
    head = "items", "devices", "train.tables", "state", "item table", "temporary", "MB exchanged in a step"
    table = Table(*head, "s to compile")
    for items in (10**7, 10**8, 10**9):
        for devices in (8, 64):
            for tables in ("null", "adam", "rowwise_adagrad"):
                mesh = make_mesh(jax.devices()[:devices])
                overrides = "train.batch_size=4096", "train.sharding=fsdp", f"features.num_items={items}"
                config = published_config(*overrides, "train.ema=0.99", f"train.tables={tables}")
                config = config.model_copy(update={"model": MatchingSettings(embedding_dim=64)})
                sizes, exchanged, took = _program(config, _abstract_items(items, mesh), mesh, 16)
                megabytes = f"{4 * sum(exchanged.values()) / 1e6:,.0f}"
                table.row(f"{items:,}", devices, tables, *(f"{size:,.2f}" for size in sizes), megabytes, f"{took:.0f}")


def _abstract_items(items: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The item table of so many items, of shapes alone, split over the devices."""

    def shape(x: np.ndarray) -> jax.ShapeDtypeStruct:
        whole = (rows_for_items(items), *x.shape[1:])
        return jax.ShapeDtypeStruct(whole, x.dtype, sharding=placed(whole, mesh, "fsdp"))

    return {name: shape(x) for name, x in made_up_items(10).items()}


def _program(config: Config, items: Any, mesh: Mesh, length: int) -> tuple[list[float], Counter[str], float]:
    """Of a compiled step: GB on one device of state, items and temporaries; numbers exchanged; seconds to compile."""
    state = abstract_state(config, items, mesh)
    batch = made_up_batch(config.train.batch_size, length)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split_rows(mesh)), batch)
    rate, start = jax.ShapeDtypeStruct((), np.float32), time.perf_counter()
    program = make_train_step(config, mesh).lower(state, batch, items, rate).compile()
    exchanged: Counter[str] = Counter()
    for kind, n in collectives(program.as_text()):
        exchanged[kind] += n
    sizes = [_gigabytes_on_one(tree) for tree in (state, items)]
    sizes.append(program.memory_analysis().temp_size_in_bytes / 1e9)
    return sizes, exchanged, time.perf_counter() - start


_HOST = """
import sys
from mmctr_jax.cli import run
try:
    run("train", sys.argv[1:])
finally:
    read = dict(line.split(": ") for line in open("/proc/self/io").read().splitlines())["rchar"]
    own = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())["RssAnon"].split()[0]
    print("read and own", read, own)
"""


def _hosts(folder: Path) -> None:
    """What each of two processes reads from files, by Linux' own count (maps and imports not included)."""
    print("two processes on loopback, sharding fsdp; 91,717 items with vectors of 128, ids 16 wide\n")
    data = write_folder(folder, 2_000)
    settings = ("train.sharding=fsdp", "train.batch_size=256", *SMALL)
    imports = _read_by(subprocess.Popen([sys.executable, "-c", _HOST, "--help"], **_SAID))[0]
    table = Table("", "process", "MB read", "MB of memory of its own at the end")
    for name, epochs, more in (("first start", 1, []), ("--resume", 2, ["--resume"])):
        command = [sys.executable, "-c", _HOST, "--config", str(PUBLISHED), "--run-dir", str(folder / "run"), *more]
        command += [*data, *settings, f"train.epochs={epochs}", "--coordinator", f"127.0.0.1:{_free_port()}"]
        both = [subprocess.Popen([*command, "--num-processes", "2", "--process-id", str(i)], **_SAID) for i in range(2)]
        for i, process in enumerate(both):
            read, own = _read_by(process)
            table.row(name, i, f"{(read - imports) / 1e6:.0f}", f"{own / 1e3:.0f}")
    files = {"item_info": folder / "item_info.parquet", "items.npz": folder / "run" / "items.npz"}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    last = max((folder / "run" / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    sizes["a checkpoint"] = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    print("\nMB: " + ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sizes.items()))


_SAID: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}


def _read_by(process: subprocess.Popen) -> tuple[int, int]:
    """Bytes it read, and KB of memory of its own at its end."""
    read, own = re.search("read and own ([0-9]+) ([0-9]+)", process.communicate()[0]).groups()
    return int(read), int(own)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _gigabytes_on_one(tree: Any) -> float:
    shapes = [(x.sharding.shard_shape(x.shape), x.dtype.itemsize) for x in jax.tree.leaves(tree)]
    return sum(math.prod(shape) * size for shape, size in shapes) / 1e9
