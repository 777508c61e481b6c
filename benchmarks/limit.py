"""Against the limit: each block of a training step alone, forward and backward, beside what the machine can do.

The machine's matrix and copy rates are measured in the same run. A block's floor is its FLOP at the matrix rate or the
bytes of its weights (read twice, gradient written; of tables the gradient alone) at the copy rate, whichever takes
longer; of a whole step, that of all FLOP and that of Adam's bytes, one after the other. The share is floor / time.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flops
from benchmarks.published import Ours, copy_rate, made_up_batch, made_up_items, matrix_rate, published_config, seconds
from mmctr_jax.models import live
from mmctr_jax.models.dcn import CrossNetwork
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.mlp import MLP
from mmctr_jax.models.transformer import HistoryEncoder
from mmctr_jax.training import optimizers as optimizer


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run limit")
    parser.add_argument("--batch", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--length", type=int, nargs="+", default=[4, 64])
    args = parser.parse_args(argv)
    ours = Ours(published_config(), made_up_items())
    for batch_size in args.batch:
        for length in args.length:
            compute, copy = matrix_rate(), copy_rate()
            print(f"\nbatch {batch_size}, histories of {length}; matrix rate {compute / 1e9:.0f} GFLOP/s, ", end="")
            print(f"copy rate {copy / 1e9:.0f} GB/s\n\n| block | GFLOP | GB | ms | share of the limit |")
            print("|---|---|---|---|---|", flush=True)
            batch = jax.device_put(made_up_batch(batch_size, length))
            rows = itertools.chain(_blocks(ours, batch, length), _whole(ours, batch, length))
            for name, flop, traffic, floor, action in rows:
                jax.block_until_ready(action())
                time, limit = seconds(action, 5), floor(flop / compute, traffic / copy)
                print(
                    f"| {name} | {flop / 1e9:.1f} | {traffic / 1e9:.2f} | {time * 1e3:.1f} | {limit / time:.0%} |",
                    flush=True,
                )


Row = tuple[str, float, float, Callable[[float, float], float], Callable]
"""Block, FLOP, bytes, the floor of the time that they take each, and the action."""


def _blocks(ours: Ours, batch: dict, length: int) -> Iterator[Row]:
    config, B, F = ours.config, len(batch["item"]), flops.width_of_f(length)
    model, D, key = config.model, config.item_width, jax.random.PRNGKey(0)
    counted, f32, real = flops.forward(length), jnp.float32, jnp.ones((B, length), bool)
    f_BxF = jax.random.normal(key, (B, F))
    encoder = HistoryEncoder(live.narrowed(config, length).model.transformer, f32)
    sequence = (
        jax.random.normal(key, (B, length, D)),
        jax.random.normal(key, (B, D)),
        real,
        real,
        jnp.zeros((B, length, 1)),
    )
    modules = {
        "embedding": (Embedding(config, f32), (batch, ours.items)),
        "Transformer": (encoder, sequence),
        "cross": (CrossNetwork(model.dcn.cross_layers, 0.0, f32), (f_BxF,)),
        "deep": (MLP(model.dcn.deep, f32, model.dcn.deep_dropout), (f_BxF,)),
    }
    for name, (module, args) in modules.items():

        def output(params, first, module=module, rest=args[1:]):
            out = module.apply(params, first, *rest, train=True, rngs={"dropout": key})
            return sum(jnp.square(x).sum() for x in jax.tree.leaves(out))  # whose gradient needs the output

        params = jax.jit(partial(module.init, train=True))({"params": key, "dropout": key}, *args)
        learns_from = 0 if name == "embedding" else (0, 1)  # whose input are ids
        run = jax.jit(jax.grad(output, argnums=learns_from))
        weights = sum(x.size for x in jax.tree.leaves(params))
        if name == "embedding":  # no gradient of ids; of the tables few rows are read, but gradients are whole
            yield name, 2 * B * counted[name], 4 * weights, max, partial(run, params, args[0])
            continue
        yield name, 3 * B * counted[name], 12 * weights, max, partial(run, params, args[0])


def _whole(ours: Ours, batch: dict, length: int) -> Iterator[Row]:
    grads = jax.jit(lambda params: jax.tree.map(jnp.zeros_like, params))(ours.state.params)
    update = jax.jit(
        lambda params, state, grads: optimizer.update(grads, state, params, jnp.float32(5e-4), 10.0)[:2],
        donate_argnums=(0, 1),
    )

    def adam():
        params, opt_state = update(ours.state.params, ours.state.opt_state, grads)
        ours.state = ours.state.replace(params=params, opt_state=opt_state)
        return params

    def step():
        ours.state, metrics = ours.train_step(ours.state, batch, ours.items, np.float32(5e-4))
        return metrics["loss"]

    yield "optimizer, gradients of whole matrices", 0, ours.adam_bytes(ours.config.model.max_history), max, adam
    yield "whole step", flops.step(length, len(batch["item"])), ours.adam_bytes(length), lambda a, b: a + b, step
