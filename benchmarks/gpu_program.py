"""What the compiled program does on GPUs that are not here: it is compiled from a card's description, and read.

    pip install -e ".[gpu-program]"
    python -m benchmarks.run gpu-program --card H100 --devices 1 --batch 128 --length 4

Without options all cards, 1 and 8 devices, both shardings, three precisions, two batches, two lengths, training and
scoring: 288 programs, most of which take 10 to 20 s to compile. Batches are those of all devices together.

Columns:
    kernels       launches a step, collectives included
    update        bytes that the optimiser reads and writes a parameter; its floor is 24, and 4 for each live gradient
    moved         GB that all kernels read and write
    weights only  MB moved by kernels that do nothing but cut or convert parameters
    off tensor cores  share of the products' FLOP
    exchanged     MB, in how many collectives, and how much of their modelled time has kernels beside it
    floor         the update's floor by the card's bandwidth, after the needed FLOP by its matrix rate: clipping needs
                  all gradients before the first update
    modelled      all kernels one after another, and what of the collectives nothing runs beside

Both times are a model: memory at the described bandwidth, products at three quarters of the described matrix rate, 2 µs
for each launch, nothing kept in the card's cache, collectives in a ring at the described rate of a link.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import flops
from benchmarks.cards import CARDS, Card
from benchmarks.flops import N
from benchmarks.generate import made_up_batch, made_up_items
from benchmarks.harness import Table
from benchmarks.program_text import Exchange, Kernel, Program
from benchmarks.published import published_config
from mmctr_jax.config import Config
from mmctr_jax.devices.sharding import make_mesh, placed, split_rows
from mmctr_jax.training.step import (
    abstract_state,
    make_predict_step,
    make_train_step,
    narrowed,
    parameter_shapes,
)

REACHED = 0.75
"""Share of the described matrix rate that products are assumed to reach."""
LAUNCH = 2e-6
"""Seconds that a kernel is assumed to take beside its work."""
LATENCY = 10e-6
"""Likewise of a collective."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run gpu-program",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--card", nargs="+", default=list(CARDS), choices=list(CARDS))
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--sharding", nargs="+", default=["replicated", "fsdp"], choices=["replicated", "fsdp"])
    parser.add_argument("--precision", nargs="+", default=["float32", "tf32", "bfloat16"])
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 4096])
    parser.add_argument("--length", type=int, nargs="+", default=[4, N])
    parser.add_argument("--step", nargs="+", default=["training", "scoring"], choices=["training", "scoring"])
    parser.add_argument("--keep", type=Path, help="folder for the programs' texts")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    args = parser.parse_args(argv)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    find_tools()
    jax.config.update("jax_platforms", "cpu")  # where nothing is computed; the plugin finds no card
    table = Table(
        *("card", "devices", "precision", "batch", "clicks", "step", "kernels", "update, bytes a parameter (floor)"),
        *("temporary, GB", "moved, GB", "weights only, MB", "off tensor cores", "exchanged, MB"),
        *("compiled in", "floor, ms", "modelled, ms"),
    )
    choices = args.card, args.devices, args.sharding, args.precision, args.batch, args.length, args.step
    for card, devices, sharding, precision, batch, length, step in itertools.product(*choices):
        if devices == 1 and sharding == "fsdp":
            continue
        overrides = f"train.precision={precision}", f"train.sharding={sharding}", f"train.batch_size={batch}"
        config = published_config(*overrides, *args.overrides)
        name = f"{devices} {sharding}" if devices > 1 else "1"
        which = card, name, precision, batch, length, step
        try:
            compiled = compile_for(CARDS[card], devices, config, length, training=step == "training")
        except jax.errors.JaxRuntimeError as error:  # where a card would try products, and take another kernel
            table.row(*which, f"not compiled: {str(error).splitlines()[0]}")
            continue
        table.row(*which, *cells(compiled, CARDS[card], devices, precision))
        if args.keep:
            (args.keep / "_".join(map(str, which)).replace(" ", "_")).with_suffix(".txt").write_text(compiled.text)


def find_tools() -> None:
    """Puts the assembler of the extra `gpu-program` on the PATH, where the compiler looks for it.

    Raises: SystemExit where it, or JAX's CUDA plugin, is not installed.
    """
    parts = [importlib.util.find_spec(name) for name in ("jax_plugins", "nvidia")]
    folders = [Path(folder) for part in parts if part for folder in part.submodule_search_locations]
    tools = [tools for folder in folders for tools in folder.glob("cu*/bin") if (tools / "ptxas").exists()]
    if not tools or not any(any(folder.glob("xla_cuda*")) for folder in folders):
        raise SystemExit('JAX\'s CUDA plugin and ptxas are needed: pip install -e ".[gpu-program]"')
    os.environ["PATH"] = f"{tools[0]}{os.pathsep}{os.environ['PATH']}"


@dataclass(frozen=True)
class Compiled:
    """A program, and what is known of it beside its text."""

    text: str
    seconds: float
    temporary: int
    """Bytes."""
    parameters: int
    """On each device."""
    live: int
    """Those of them that histories of this length need."""
    flop: float
    """Of the products that are needed, on each device."""
    training: bool


def compile_for(card: Card, devices: int, config: Config, length: int, training: bool = True) -> Compiled:
    """The training or scoring step of `config` for so many of these cards, and histories of `length` clicks."""
    topology = topologies.get_topology_desc(
        platform="cuda", topology_name=card.name, target_config=card.target, topology=f"1x1x{devices}"
    )
    mesh, batch_size = make_mesh(topology.devices), config.train.batch_size
    items = _placed(made_up_items(), mesh, config)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split_rows(mesh)), made_up_batch(batch_size, length)
    )
    state = abstract_state(config, items, mesh)
    live = _placed(parameter_shapes(narrowed(config, length), items), mesh, config)
    if training:
        lowered = make_train_step(config, mesh).lower(state, batch, items, jax.ShapeDtypeStruct((), np.float32))
    else:
        lowered = make_predict_step(config, mesh).lower(live, state.batch_stats, batch, items)
    start = time.perf_counter()
    # There is no card on which to try products: XLA takes its first choice.
    program = lowered.compile(compiler_options={"xla_gpu_autotune_level": "0"})
    taken = time.perf_counter() - start
    flop = flops.step(length, batch_size) / devices * (1 if training else 1 / 3)
    temporary = program.memory_analysis().temp_size_in_bytes
    return Compiled(program.as_text(), taken, temporary, *map(_on_one, (state.params, live)), flop, training)


def _placed(tree: Any, mesh: Mesh, config: Config) -> Any:
    def place(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=placed(x.shape, mesh, config.train.sharding))

    return jax.tree.map(place, tree)


def _on_one(tree: Any) -> int:
    """Numbers on each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) for x in jax.tree.leaves(tree))


def launches(program: Program) -> int:
    """Kernels and collectives of a step."""
    return sum(kernel.times for kernel in program.kernels) + len(program.exchanges)


def update_bytes(program: Program) -> int:
    """Bytes that the optimiser's pass over parameters and moments reads and writes."""
    return sum(kernel.times * kernel.nbytes for kernel in program.kernels if kernel.within("optimizer"))


def floor_seconds(compiled: Compiled, card: Card, precision: str) -> float:
    """By needed bytes and FLOP alone."""
    products = compiled.flop / (REACHED * card.flop_rate(precision))
    if not compiled.training:
        return max(products, 4 * compiled.live / card.bandwidth)
    return products + flops.adam_bytes(compiled.parameters, compiled.live) / card.bandwidth


def modelled_seconds(program: Program, card: Card, devices: int) -> float:
    """All kernels one after another, and what of the collectives nothing runs beside."""
    waited = (seconds_exchanging(exchange, card, devices, beside=True) for exchange in program.exchanges)
    return sum(_seconds_of(kernel, card) for kernel in program.kernels) + sum(waited)


def _seconds_of(kernel: Kernel, card: Card) -> float:
    computing = sum(product.flop / (REACHED * card.flop_rate(product.precision)) for product in kernel.products)
    return kernel.times * (LAUNCH + max(computing, kernel.nbytes / card.bandwidth))


def seconds_exchanging(exchange: Exchange, card: Card, devices: int, beside: bool) -> float:
    """Of a ring of all devices; `beside`: what of it is not hidden by the kernels that run meanwhile."""
    passes = 2 if exchange.kind == "all-reduce" else 1
    taken = LATENCY + passes * (devices - 1) / devices * exchange.nbytes / card.link
    return max(0.0, taken - sum(_seconds_of(kernel, card) for kernel in exchange.beside)) if beside else taken


def cells(compiled: Compiled, card: Card, devices: int, precision: str) -> list[str]:
    """What the table says of a program, from `kernels` on."""
    program = Program(compiled.text)
    kernels, exchanges = program.kernels, program.exchanges
    products = [(kernel.times * product.flop, product.precision) for kernel in kernels for product in kernel.products]
    off = sum(flop for flop, units in products if units == "float32") / max(sum(flop for flop, _ in products), 1)
    update = exchanged = ""
    if compiled.training:
        floor = flops.adam_bytes(compiled.parameters, compiled.live) / compiled.parameters
        update = f"{update_bytes(program) / compiled.parameters:.1f} ({floor:.1f})"
    if exchanges:
        total, waited = (sum(seconds_exchanging(e, card, devices, b) for e in exchanges) for b in (False, True))
        hidden = f"{len(exchanges)}, {1 - waited / total:.0%} hidden"
        exchanged = f"{sum(e.nbytes for e in exchanges) / 1e6:,.0f} ({hidden})"
    return [
        f"{launches(program)}",
        update,
        f"{compiled.temporary / 1e9:.2f}",
        f"{sum(kernel.times * kernel.nbytes for kernel in kernels) / 1e9:.1f}",
        f"{sum(kernel.times * kernel.nbytes for kernel in kernels if kernel.only_moves_weights) / 1e6:,.0f}",
        f"{off:.0%}",
        exchanged,
        f"{compiled.seconds:.0f} s",
        f"{floor_seconds(compiled, card, precision) * 1e3:.2f}",
        f"{modelled_seconds(program, card, devices) * 1e3:.2f}",
    ]
