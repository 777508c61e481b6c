"""Each saving alone: what counting predicts, and what it measures, without it and with it, in the same run.

What was tried and not kept stands here, too, so that it can be tried again where it may pay.
"""

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import flops
from benchmarks.flops import N, T
from benchmarks.published import ITEMS, Ours, made_up_batch, made_up_items, made_up_split, published_config, seconds
from mmctr_jax.config import default_lengths
from mmctr_jax.data.cache import Split
from mmctr_jax.data.loader import train_batches
from mmctr_jax.devices.sharding import put_batch
from mmctr_jax.models import build_model, dropout, live, transformer
from mmctr_jax.models.embedding import Embedding
from mmctr_jax.models.linear import SharedDense
from mmctr_jax.models.transformer import HistoryEncoder
from mmctr_jax.training import optimizers as optimizer
from mmctr_jax.training.step import make_narrow, make_train_step

COARSE = (4, 8, 16, 32)
FINE = default_lengths(N)[:-1]
Rows = Iterator[tuple[str, float | None, float, float]]
"""What, the predicted gain if there is a count, seconds without it, seconds with it."""


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run savings")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--only", choices=list(MEASURES), nargs="+", default=list(MEASURES))
    args = parser.parse_args(argv)
    print(f"batch {args.batch}\n\n| saving | predicted | without | with | measured |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        split = made_up_split(Path(folder), args.rows)
        for name in args.only:
            for what, predicted, without, with_it in MEASURES[name](split, args.batch):
                predicted = f"{predicted:.2f} ×" if predicted else ""
                print(f"| {what} | {predicted} | {_show(without)} | {_show(with_it)} ", end="")
                print(f"| {without / with_it:.2f} × |", flush=True)


def _show(time: float) -> str:
    return f"{time:.2f} s" if time >= 1 else f"{time * 1e3:.1f} ms"


def _in_turns(*actions: Callable, times: int = 3) -> list[float]:
    """The medians of actions that take turns, after a first one of each."""
    for action in actions:
        jax.block_until_ready(action())
    return list(np.median([[seconds(action) for action in actions] for _ in range(times)], axis=0))


def _flop(split: Split, batch_size: int, buckets: tuple[int, ...], narrowed: bool) -> float:
    """Mean forward FLOP a sample over an epoch's batches, with or without the narrowed cross and deep layers."""
    whole = flops.forward(N)

    def of(length: int) -> float:
        short = flops.forward(length)
        return sum((short if narrowed else whole | {b: short[b] for b in ("Transformer", "embedding")}).values())

    batches = train_batches(split, batch_size=batch_size, lengths=(*buckets, N), seed=1, epochs=1)
    return float(np.mean([of(batch["history"].shape[1]) for batch in batches]))


def _epoch(split: Split, batch_size: int, buckets: tuple[int, ...], narrowed: bool = True) -> float:
    """Seconds of an epoch of training, loading included."""
    whole = mock.patch.object(live, "narrowed", lambda config, length: config)
    with contextlib.nullcontext() if narrowed else whole:
        ours = Ours(
            published_config(train={"batch_size": batch_size, "length_buckets": list(buckets)}), made_up_items()
        )
        ours.train(split)
        return seconds(lambda: ours.train(split))


def buckets(split: Split, batch_size: int) -> Rows:
    """Length buckets, then the narrowed cross and deep layers on top."""
    padded, grouped = _flop(split, batch_size, (), False), _flop(split, batch_size, COARSE, False)
    narrowed, finest = _flop(split, batch_size, COARSE, True), _flop(split, batch_size, FINE, True)
    a, b, c = (
        _epoch(split, batch_size, ()),
        _epoch(split, batch_size, COARSE, False),
        _epoch(split, batch_size, COARSE),
    )
    yield "1. batches of one length (4, 8, 16, 32, 64), an epoch", padded / grouped, a, b
    yield "2. and the live part of cross and deep layers", grouped / narrowed, b, c
    yield "1 and 2 together", padded / narrowed, a, c
    yield (
        "more lengths: 1, 2, 3, 4, 6, 8, 12, 16 … instead of 4, 8, 16, 32",
        narrowed / finest,
        c,
        _epoch(split, batch_size, FINE),
    )


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
        times = _in_turns(*(partial(f, params, x, target) for f in gradients))
        yield f"3. target once: the first layer's projections, length {length}", 2 * length / (length + 1), *times


def stand_in(split: Split, batch_size: int) -> Rows:
    """Scoring a batch with the released mask: one position, or all 64, in the encoder."""
    config = published_config(history_mask="released", transformer={"dropout": 0.0}, dcn={"deep_dropout": 0.0})
    ours = Ours(config, made_up_items())
    padded = train_batches(split, batch_size=batch_size, lengths=(N,), seed=1, epochs=1)
    batch = put_batch(next(padded), ours.mesh)
    apply = jax.jit(build_model(config).apply, static_argnames="train")
    params = {"params": ours.state.params}
    times = _in_turns(*(partial(apply, params, batch, ours.items, train=train) for train in (True, False)))
    counted = flops.forward(N)
    less = counted | {"Transformer": flops.forward(1)["Transformer"]}
    yield "4. released mask, scoring: one padding position for all", sum(counted.values()) / sum(less.values()), *times


def items_once(split: Split, batch_size: int) -> Rows:
    """Tried: item vectors of a batch once per distinct item. Forward and backward of the embedding layer."""
    module, length = Embedding(published_config(), jnp.float32), 8
    popular = np.minimum(np.random.default_rng(0).zipf(1.3, (batch_size, length + 1)), ITEMS - 1).astype(np.int32)
    batch = {"history": popular[:, 1:], "item": popular[:, 0], "side": np.ones((batch_size, 2), np.int32)}
    batch, items = jax.tree.map(jnp.asarray, (batch, made_up_items()))
    params = jax.jit(partial(module.init, train=True))(jax.random.PRNGKey(0), batch, items)
    distinct = len(np.unique(popular))

    def each(params, batch):
        e = module.apply(params, batch, items, train=True)
        return (e.history**2).sum() + (e.target**2).sum()

    def once(params, batch):
        ids = jnp.concatenate([batch["item"][:, None], batch["history"]], axis=1)
        unique, places = jnp.unique(ids, return_inverse=True, size=-(-distinct // 1024) * 1024, fill_value=0)
        vectors = module.apply(params, unique, items, True, method=Embedding.item)[places.reshape(ids.shape)]
        return (vectors**2).sum()

    times = _in_turns(*(partial(jax.jit(jax.grad(f)), params, batch) for f in (each, once)))
    yield f"5. tried: each item once ({distinct:,} of {popular.size:,}), embedding layer", None, *times


def adam(split: Split, batch_size: int) -> Rows:
    """The update of all parameters, by gradients of whole matrices, and by those that histories of 4 need."""
    ours = Ours(published_config(), made_up_items())
    params, state, rate = ours.state.params, ours.state.opt_state, jnp.float32(5e-4)
    chain = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(5e-4))

    def gradients(params):
        return jax.tree.map(lambda x: jnp.full(x.shape, 1e-3), params)

    def of_optax(params, state, grads):
        updates, state = chain.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    def of_ours(params, state, grads, add=jnp.add):
        return optimizer.update(grads, state, params, rate, 10.0, add)[:2]

    def in_bfloat16(params, state, grads):
        wide = state._replace(mu=jax.tree.map(lambda m: m.astype(jnp.float32), state.mu))
        params, state = of_ours(params, wide, grads)
        return params, state._replace(mu=jax.tree.map(lambda m: m.astype(jnp.bfloat16), state.mu))

    def timed(update, params, state, grads, donated=(0, 1)):
        step, box = jax.jit(update, donate_argnums=donated), [(params, state)]

        def once():
            box[0] = step(*box[0], grads)
            return box[0]

        once()
        return seconds(once, 5), *box[0]

    grads = gradients(params)
    copied, params, _ = timed(of_optax, params, chain.init(params), grads, donated=())
    donated, params, _ = timed(of_optax, params, chain.init(params), grads)
    fused, params, state = timed(of_ours, params, state, grads)
    yield "6. clip and Adam: optax, not donated → ours", None, copied, fused
    yield "6. clip and Adam: optax, donated → ours", None, donated, fused
    narrow_grads = make_narrow(ours.config, ours.mesh)(grads, ours.items, 4)
    of_live = partial(of_ours, add=partial(live.add, config=ours.config))
    short, params, state = timed(of_live, params, state, narrow_grads)
    half = state._replace(mu=jax.tree.map(lambda m: m.astype(jnp.bfloat16), state.mu))
    halved, *_ = timed(in_bfloat16, params, half, grads)
    yield "6. Adam: whole gradients → those of histories of 4", None, fused, short
    yield "6. tried: first moments in bfloat16", 28 / 24, fused, halved


class _OfFlax(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return nn.Dropout(self.rate, deterministic=not train)(x)


def random_bits(split: Split, batch_size: int) -> Rows:
    """An encoder, forward and backward, with Flax's dropout (32 bits an element), ours (16 bits), and none."""
    key = jax.random.PRNGKey(0)
    for length in (4, N):
        x, target, real = (
            jnp.ones((batch_size, length, T // 2)),
            jnp.ones((batch_size, T // 2)),
            jnp.ones((batch_size, length), bool),
        )
        args = (x, target, real, real, jnp.zeros((batch_size, length, 1)), True)
        actions = []
        for module, rate in ((_OfFlax, 0.2), (dropout.Dropout, 0.2), (dropout.Dropout, 0.0)):
            config = published_config(transformer={"dropout": rate, "first_k": min(16, length)})
            encoder = HistoryEncoder(config.model.transformer, jnp.float32)

            def output(params, encoder=encoder, args=args):
                return encoder.apply(params, *args, rngs={"dropout": key}).sum()

            with mock.patch.object(transformer, "Dropout", module):
                params = encoder.init({"params": key, "dropout": key}, *args)
                actions.append(partial(jax.jit(jax.grad(output)).lower(params).compile(), params))
        flax, ours, none = _in_turns(*actions)
        yield f"7. dropout in the encoder, length {length}: Flax's → 16 bits", None, flax, ours
        yield f"7. dropout in the encoder, length {length}: 16 bits → none", None, ours, none


def dropout_of_step(split: Split, batch_size: int) -> Rows:
    """A whole step, with dropout and without."""
    ours = Ours(published_config(), made_up_items())
    without = published_config(transformer={"dropout": 0.0}, dcn={"deep_dropout": 0.0})
    steps = ours.train_step, make_train_step(without, ours.mesh)
    for length in (4, N):
        batch = put_batch(made_up_batch(batch_size, length), ours.mesh)

        def stepped(step, batch=batch):
            ours.state, metrics = step(ours.state, batch, ours.items, np.float32(5e-4))
            return metrics["loss"]

        yield (
            f"7. a whole step, length {length}: 16 bits → no dropout",
            None,
            *_in_turns(*(partial(stepped, f) for f in steps)),
        )


MEASURES = {
    "buckets": buckets,
    "target": target_once,
    "released": stand_in,
    "items": items_once,
    "adam": adam,
    "dropout": random_bits,
    "dropout_of_step": dropout_of_step,
}
