"""Ours against the released design in PyTorch (`references`): the same data and batches, on the same cores, in turns.

Training is samples/s end to end, loading included; ours over a whole epoch, so that batches of all lengths have their
share, with the lengths that an epoch of as many rows as MicroLens-50k has would get; the peer over some batches, which
all cost the same. Compilation is not counted (see `startup`).
"""

import argparse
import itertools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.flops import N
from benchmarks.generate import ITEMS, made_up_items, made_up_split, microlens_lengths, split_of
from benchmarks.harness import Table, turns
from benchmarks.published import MeasuredModel, published_config
from mmctr_jax.data.lengths import scoring_lengths, training_lengths

ROWS = 579_416  # MicroLens-50k's, in training


def main(argv: list[str]) -> None:
    import torch  # optional

    from references.fuxictr_model import Peer, Trainer, make_loader, predict

    parser = argparse.ArgumentParser(prog="python -m benchmarks.run peer")
    parser.add_argument("--what", choices=["train", "predict"], default="train")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=16_384, help="of ours; the peer takes some batches of them")
    parser.add_argument("--peer-batches", type=int, default=2, help="in each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="every history has all 64 clicks")
    parser.add_argument("--mask", choices=["valid", "released"], default="valid", help="ours; the peer's is released")
    parser.add_argument("--device", default="cpu", help="of the peer, as PyTorch names it")
    args = parser.parse_args(argv)
    if args.rows < args.peer_batches * args.batch:
        parser.error("--rows must hold the peer's batches")
    training = args.what == "train"
    settings = [f"model.history_mask={args.mask}", f"train.batch_size={args.batch}"]
    config = published_config(*settings, f"train.eval_batch_size={args.batch}")
    if training:
        clicks = np.full(ROWS, N) if args.full else microlens_lengths(ROWS, np.random.default_rng(0))
        lengths = training_lengths(config.model, config.train, clicks)
        config = published_config(*settings, f"train.length_buckets={list(lengths[:-1])}")
        print(f"Lengths {', '.join(map(str, lengths))}")
    print(f"PyTorch {torch.__version__}; {ITEMS:,} items, N = {N}, batch {args.batch}, {args.what}, ", end="")
    print(f"histories {'all full' if args.full else 'as long as MicroLens-50k'}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        split, items = made_up_split(Path(folder), args.rows, args.full), made_up_items()
        model = MeasuredModel(config, items)
        peer = Peer(published_config("model.history_mask=released")).to(args.device)
        trainer = Trainer(peer)
        run = model.train if training else model.score
        run(split_of(Path(folder), np.repeat(scoring_lengths(config.model, config.train), args.batch)))  # compiles

        def of_peer() -> None:
            loader = make_loader(split, items, batch_size=args.batch, length=N, shuffle=training)
            batches = itertools.islice(loader, args.peer_batches)
            if training:
                for batch in batches:
                    trainer.step(batch)
            else:
                predict(peer, batches)

        of_peer()  # the first one allocates
        rows = np.array([split.rows, args.peer_batches * args.batch])
        table, taken = Table("turn", "ours, samples/s", "peer, samples/s", "ratio"), []
        for seconds in turns(lambda: run(split), of_peer, times=args.turns):
            taken.append(seconds)
            ours, peers = rows / seconds
            table.row(len(taken), f"{ours:,.0f}", f"{peers:,.1f}", f"{ours / peers:.1f}")
        ours, peers = rows / np.mean(taken, axis=0)
        table.row("all", f"{ours:,.0f}", f"{peers:,.1f}", f"**{ours / peers:.1f}**")
