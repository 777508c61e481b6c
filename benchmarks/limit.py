"""Against the limit: each block of a training step alone, forward and backward, beside what the machine can do.

The machine's matrix and copy rates are measured in the same run. A block's floor is its FLOP at the matrix rate or the
bytes of its weights (read twice, gradient written; of tables the gradient alone) at the copy rate, whichever takes
longer; of a whole step, that of all FLOP and that of Adam's bytes, one after the other. The share is floor / time.
"""

import argparse
import itertools
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks import clipped_adam as optimizer
from benchmarks import flops
from benchmarks.generate import made_up_batch, made_up_items
from benchmarks.harness import Action, Table, copy_rate, matrix_rate, seconds
from benchmarks.published import LEARNING_RATE, MeasuredModel, published_config
from mmctr_jax.models.dcn import CrossNetwork
from mmctr_jax.models.embedding import EmbeddingLayer
from mmctr_jax.models.mlp import MLP
from mmctr_jax.models.transformer import HistoryEncoder


class Block(NamedTuple):
    """A part of a step: what it costs by counting, and the action that is timed."""

    name: str
    flop: float
    bytes: float
    action: Action


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run limit")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--length", type=int, nargs="+", default=[4, 64])
    args = parser.parse_args(argv)
    model = MeasuredModel(published_config(), made_up_items())
    for batch_size in args.batch:
        for length in args.length:
            compute, copy = matrix_rate(), copy_rate()
            print(f"\nbatch {batch_size}, histories of {length}; matrix rate {compute / 1e9:.0f} GFLOP/s, ", end="")
            print(f"copy rate {copy / 1e9:.0f} GB/s\n")
            table = Table("block", "GFLOP", "GB", "ms", "share of the limit")
            batch = jax.device_put(made_up_batch(batch_size, length))
            for block in itertools.chain(blocks(model, batch, length), _whole(model, batch, length)):
                time, floors = seconds(block.action, 5), (block.flop / compute, block.bytes / copy)
                floor = sum(floors) if block.name == "whole step" else max(floors)
                sizes = f"{block.flop / 1e9:.1f}", f"{block.bytes / 1e9:.2f}"
                table.row(block.name, *sizes, f"{time * 1e3:.1f}", f"{floor / time:.0%}")


def blocks(measured: MeasuredModel, batch: dict, length: int) -> Iterator[Block]:
    """The parts of a model, forward and backward, at the length that a batch needs."""
    config, B, F = measured.config, len(batch["item"]), flops.width_of_f(length)
    model, D, key = config.model, config.features.item_width(config.model.embedding_dim), jax.random.PRNGKey(0)
    counted, f32, real = flops.forward(length, B), jnp.float32, jnp.ones((B, length), bool)
    f_BxF = jax.random.normal(key, (B, F))
    encoder = HistoryEncoder(config.model.narrowed(length).transformer, f32)
    sequence = (
        jax.random.normal(key, (B, length, D)),
        jax.random.normal(key, (B, D)),
        real,
        real,
        jnp.zeros((B, length, 1)),
    )
    modules = {
        "embedding": (EmbeddingLayer(config.features, model, f32), (batch, measured.items)),
        "Transformer": (encoder, sequence),
        "cross": (CrossNetwork(model.dcn.cross_layers, model.dcn.rank, 0.0, f32), (f_BxF,)),
        "deep": (MLP(model.dcn.deep, f32, model.dcn.deep_dropout), (f_BxF,)),
    }
    for name, (module, args) in modules.items():

        def output(params, first, module=module, rest=args[1:]):
            out = module.apply(params, first, *rest, train=True, rngs={"dropout": key})
            return sum(jnp.square(x).sum() for x in jax.tree.leaves(out))  # whose gradient needs the output

        params = jax.jit(partial(module.init, train=True))({"params": key, "dropout": key}, *args)
        weights = sum(x.size for x in jax.tree.leaves(params))
        # Ids have no gradient; of the tables few rows are read, but gradients are whole.
        learns_from, times, traffic = (0, 2, 4 * weights) if name == "embedding" else ((0, 1), 3, 12 * weights)
        run = jax.jit(jax.grad(output, argnums=learns_from))
        yield Block(name, times * B * counted[name], traffic, partial(run, params, args[0]))


def _whole(measured: MeasuredModel, batch: dict, length: int) -> Iterator[Block]:
    grads = jax.jit(lambda params: jax.tree.map(jnp.zeros_like, params))(measured.state.params)
    update = jax.jit(
        lambda params, state, grads: optimizer.update(grads, state, params, LEARNING_RATE, 10.0)[:2],
        donate_argnums=(0, 1),
    )

    def adam() -> dict:
        params, opt_state = update(measured.state.params, measured.state.opt_state, grads)
        measured.state = measured.state.replace(params=params, opt_state=opt_state)
        return params

    every, live_ones = (measured.adam_bytes(n) for n in (measured.config.model.max_history, length))
    yield Block("optimizer, gradients of whole matrices", 0, every, adam)
    yield Block("whole step", flops.step(length, len(batch["item"])), live_ones, lambda: measured.step(batch))
