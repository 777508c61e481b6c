"""Each saving alone: what counting predicts, and what it measures, without it and with it, in the same run."""

import argparse
import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import clipped_adam as optimizer
from benchmarks import flops
from benchmarks.flops import N, T
from benchmarks.generate import made_up_batch, made_up_items, made_up_split
from benchmarks.harness import Table, duration, in_turns, seconds
from benchmarks.published import LEARNING_RATE, MeasuredModel, published_config
from mmctr_jax.data.cache import Split
from mmctr_jax.data.lengths import default_lengths
from mmctr_jax.data.loader import train_batches
from mmctr_jax.devices.sharding import put_batch
from mmctr_jax.models import attention, build_model, dropout, live, transformer
from mmctr_jax.models.linear import SharedDense
from mmctr_jax.models.mmctr import MMCTRSettings
from mmctr_jax.models.transformer import HistoryEncoder
from mmctr_jax.training.step import make_narrow, make_train_step

COARSE = (4, 8, 16, 32)
WITHOUT_DROPOUT = "model.transformer.dropout=0", "model.dcn.deep_dropout=0"
FINE = default_lengths(N)[:-1]
Rows = Iterator[tuple[str, float | None, float, float]]
"""What, the predicted gain if there is a count, seconds without it, seconds with it."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run savings")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--only", choices=list(MEASURES), nargs="+", default=list(MEASURES))
    args = parser.parse_args(argv)
    print(f"batch {args.batch}\n")
    table = Table("saving", "predicted", "without", "with", "measured")
    with tempfile.TemporaryDirectory() as folder:
        split = made_up_split(Path(folder), args.rows)
        for name in args.only:
            for what, predicted, without, with_it in MEASURES[name](split, args.batch):
                predicted = f"{predicted:.2f} ×" if predicted else ""
                table.row(what, predicted, duration(without), duration(with_it), f"{without / with_it:.2f} ×")


def _flop(split: Split, batch_size: int, buckets: tuple[int, ...], narrowed: bool) -> float:
    """Mean forward FLOP a sample over an epoch's batches, with or without the narrowed cross and deep layers."""
    whole = flops.forward(N, batch_size)

    def of(length: int) -> float:
        short = flops.forward(length, batch_size)
        return sum((short if narrowed else whole | {b: short[b] for b in ("Transformer", "embedding")}).values())

    batches = train_batches(split, batch_size=batch_size, lengths=(*buckets, N), seed=1, epochs=1)
    return float(np.mean([of(batch["history"].shape[1]) for batch in batches]))


def _epoch(split: Split, batch_size: int, buckets: tuple[int, ...], narrowed: bool = True) -> float:
    """Seconds of an epoch of training, loading included."""
    whole = mock.patch.object(MMCTRSettings, "narrowed", lambda settings, length: settings)
    with contextlib.nullcontext() if narrowed else whole:
        config = published_config(f"train.batch_size={batch_size}", f"train.length_buckets={list(buckets)}")
        model = MeasuredModel(config, made_up_items())
        return seconds(lambda: model.train(split), times=1)


def buckets(split: Split, batch_size: int) -> Rows:
    """Length buckets, then the narrowed cross and deep layers on top."""
    padded, grouped = _flop(split, batch_size, (), False), _flop(split, batch_size, COARSE, False)
    narrowed, finest = _flop(split, batch_size, COARSE, True), _flop(split, batch_size, FINE, True)
    a, b = _epoch(split, batch_size, ()), _epoch(split, batch_size, COARSE, False)
    c, d = _epoch(split, batch_size, COARSE), _epoch(split, batch_size, FINE)
    yield "1. batches of one length (4, 8, 16, 32, 64), an epoch", padded / grouped, a, b
    yield "2. and the live part of cross and deep layers", grouped / narrowed, b, c
    yield "1 and 2 together", padded / narrowed, a, c
    yield "more lengths: 1, 2, 3, 4, 6, 8, 12, 16 … instead of 4, 8, 16, 32", narrowed / finest, c, d


def target_once(split: Split, batch_size: int) -> Rows:
    """The first layer's projections, forward and backward."""
    for length in (4, N):
        x = jax.random.normal(jax.random.PRNGKey(0), (batch_size, length, T // 2))
        target = jax.random.normal(jax.random.PRNGKey(1), (batch_size, T // 2))
        init = nn.initializers.xavier_uniform()
        shared, plain = SharedDense(3 * T, init, jnp.float32), nn.Dense(3 * T, kernel_init=init)
        params = shared.init(jax.random.PRNGKey(2), x, target)

        def once(params, x, target, layer=shared):
            return layer.apply(params, x, target).sum()

        def each(params, x, target, layer=plain):
            everywhere = jnp.broadcast_to(target[:, None], x.shape)
            return layer.apply(params, jnp.concatenate([x, everywhere], axis=-1)).sum()

        gradients = [jax.jit(jax.grad(f, argnums=(0, 1, 2))) for f in (each, once)]
        times = in_turns(*(partial(f, params, x, target) for f in gradients))
        yield f"3. target once: the first layer's projections, length {length}", 2 * length / (length + 1), *times


def stand_in(split: Split, batch_size: int) -> Rows:
    """Scoring a batch with the released mask: one position, or all 64, in the encoder."""
    config = published_config("model.history_mask=released", *WITHOUT_DROPOUT)
    model = MeasuredModel(config, made_up_items())
    padded = train_batches(split, batch_size=batch_size, lengths=(N,), seed=1, epochs=1)
    batch = put_batch(next(padded), model.mesh)
    apply = jax.jit(build_model(config.model, config.features).apply, static_argnames="train")
    params = {"params": model.state.params}
    times = in_turns(*(partial(apply, params, batch, model.items, train=train) for train in (True, False)))
    counted = flops.forward(N, batch_size)
    less = counted | {"Transformer": flops.forward(1, batch_size)["Transformer"]}
    yield "4. released mask, scoring: one padding position for all", sum(counted.values()) / sum(less.values()), *times


def adam(split: Split, batch_size: int) -> Rows:
    """The update of all parameters, by gradients of whole matrices, and by those that histories of 4 need."""
    model = MeasuredModel(published_config(), made_up_items())
    params, state = model.state.params, model.state.opt_state
    chain = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(5e-4))

    def gradients(params):
        return jax.tree.map(lambda x: jnp.full(x.shape, 1e-3), params)

    def of_optax(params, state, grads):
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def of_ours(params, state, grads, add=jnp.add):
        return optimizer.update(grads, state, params, LEARNING_RATE, 10.0, add)[:2]

    def timed(update, params, state, grads, donated=(0, 1)):
        step, box = jax.jit(update, donate_argnums=donated), [(params, state)]

        def once():
            box[0] = step(*box[0], grads)
            return box[0]

        return seconds(once, 5), *box[0]

    grads = gradients(params)
    copied, params, _ = timed(of_optax, params, chain.init(params), grads, donated=())
    donated, params, _ = timed(of_optax, params, chain.init(params), grads)
    fused, params, state = timed(of_ours, params, state, grads)
    yield "6. clip and Adam: optax, not donated → ours", None, copied, fused
    yield "6. clip and Adam: optax, donated → ours", None, donated, fused
    leading = live.leading_columns(model.config.features, model.config.model)
    narrow_grads = make_narrow(model.config, model.mesh)(grads, model.items, 4)
    of_live = partial(of_ours, add=partial(live.add, leading=leading))
    short, *_ = timed(of_live, params, state, narrow_grads)
    yield "6. Adam: whole gradients → those of histories of 4", None, fused, short


def matrices_first(split: Split, batch_size: int) -> Rows:
    """The encoder, forward and backward, and a whole step, with attention's matrices multiplied first or not."""
    model = MeasuredModel(published_config(), made_up_items())
    for length in (16, N):
        batch, encoders, steps = put_batch(made_up_batch(batch_size, length), model.mesh), [], []
        for positions in (math.inf, attention.POSITIONS_A_COLUMN):
            with mock.patch.object(attention, "POSITIONS_A_COLUMN", positions):
                encoders.append(_encoder(batch_size, length, rate=0.2))
                model.train_step = make_train_step(model.config, model.mesh)
                model.step(batch)  # compiled here
            steps.append(model.train_step)

        def stepped(train_step, batch=batch):
            model.train_step = train_step
            return model.step(batch)

        counted = (flops.forward(length, rows) for rows in (1, batch_size))
        (before, all_before), (now, all_now) = ((flop["Transformer"], sum(flop.values())) for flop in counted)
        yield f"8. matrices first, the encoder, length {length}", before / now, *in_turns(*encoders)
        times = in_turns(*(partial(stepped, train_step) for train_step in steps))
        yield f"8. matrices first, a whole step, length {length}", all_before / all_now, *times


def _encoder(batch_size: int, length: int, rate: float) -> Callable[[], Any]:
    """Compiled: the gradients of an encoder's parameters."""
    key, history = jax.random.PRNGKey(0), jnp.ones((batch_size, length, T // 2))
    target, real = jnp.ones((batch_size, T // 2)), jnp.ones((batch_size, length), bool)
    args = (history, target, real, real, jnp.zeros((batch_size, length, 1)), True)
    options = f"model.transformer.dropout={rate}", f"model.transformer.first_k={min(16, length)}"
    encoder = HistoryEncoder(published_config(*options).model.transformer, jnp.float32)

    def output(params):
        return encoder.apply(params, *args, rngs={"dropout": key}).sum()

    params = encoder.init({"params": key, "dropout": key}, *args)
    return partial(jax.jit(jax.grad(output)).lower(params).compile(), params)


class _OfFlax(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(self.rate, deterministic=not train)(x)


def random_bits(split: Split, batch_size: int) -> Rows:
    """An encoder, forward and backward, with Flax's dropout (32 bits an element), ours (16 bits), and none."""
    for length in (4, N):
        actions = []
        for module, rate in ((_OfFlax, 0.2), (dropout.Dropout, 0.2), (dropout.Dropout, 0.0)):
            with mock.patch.object(attention, "Dropout", module), mock.patch.object(transformer, "Dropout", module):
                actions.append(_encoder(batch_size, length, rate))
        flax, ours, none = in_turns(*actions)
        yield f"7. dropout in the encoder, length {length}: Flax's → 16 bits", None, flax, ours
        yield f"7. dropout in the encoder, length {length}: 16 bits → none", None, ours, none


def dropout_of_step(split: Split, batch_size: int) -> Rows:
    """A whole step, with dropout and without."""
    model = MeasuredModel(published_config(), made_up_items())
    steps = model.train_step, make_train_step(published_config(*WITHOUT_DROPOUT), model.mesh)
    for length in (4, N):
        batch = put_batch(made_up_batch(batch_size, length), model.mesh)

        def stepped(train_step, batch=batch):
            model.train_step = train_step
            return model.step(batch)

        times = in_turns(*(partial(stepped, train_step) for train_step in steps))
        yield f"7. a whole step, length {length}: 16 bits → no dropout", None, *times


MEASURES = {
    "buckets": buckets,
    "target": target_once,
    "released": stand_in,
    "adam": adam,
    "dropout": random_bits,
    "dropout_of_step": dropout_of_step,
    "attention": matrices_first,
}
