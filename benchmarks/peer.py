"""Ours against the released design in PyTorch (`references`): the same data and batches, on the same cores, in turns.

Training is samples/s end to end, loading included; ours over a whole epoch, so that batches of all lengths have their
share, with the lengths that an epoch of as many rows as MicroLens-50k has would get; the peer over some batches, which
all cost the same. Compilation is not counted (see `startup`).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.flops import N
from benchmarks.generate import generated_split, microlens_lengths
from benchmarks.published import ITEMS, Ours, made_up_items, made_up_split, published_config
from mmctr_jax.data.loader import training_lengths

ROWS = 579_416  # MicroLens-50k's, in training


def main(argv: list[str]) -> None:
    import torch  # optional

    from references.fuxictr_model import Peer, Trainer, make_loader

    parser = argparse.ArgumentParser(prog="python -m benchmarks.run peer")
    parser.add_argument("--what", choices=["train", "predict"], default="train")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument(
        "--rows", type=int, default=16_384, help="of ours; the peer takes --peer-batches batches of them"
    )
    parser.add_argument("--peer-batches", type=int, default=2, help="in each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="every history has all 64 clicks")
    parser.add_argument("--mask", choices=["valid", "released"], default="valid", help="ours; the peer's is released")
    parser.add_argument("--device", default="cpu", help="of the peer, as PyTorch names it")
    args = parser.parse_args(argv)
    if args.rows < args.peer_batches * args.batch:
        parser.error("--rows must hold the peer's batches")
    sizes, items = {"batch_size": args.batch, "eval_batch_size": args.batch}, made_up_items()
    config = published_config(history_mask=args.mask, train=sizes)
    if args.what == "train":
        clicks = np.full(ROWS, N) if args.full else microlens_lengths(ROWS, np.random.default_rng(0))
        lengths = training_lengths(config, clicks)
        config = published_config(history_mask=args.mask, train=sizes | {"length_buckets": list(lengths[:-1])})
        print(f"Lengths {', '.join(map(str, lengths))}")
    print(f"PyTorch {torch.__version__}; {ITEMS:,} items, N = {N}, batch {args.batch}, {args.what}, ", end="")
    print(f"histories {'all full' if args.full else 'as long as MicroLens-50k'}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        split = made_up_split(Path(folder), args.rows, args.full)
        ours, peer = Ours(config, items), Peer(published_config(history_mask="released")).to(args.device)
        trainer = Trainer(peer)
        run = ours.train if args.what == "train" else ours.score
        every_length = np.repeat(config.scoring_lengths, args.batch)
        run(generated_split(Path(folder), len(every_length), every_length))  # compiles

        def of_ours() -> float:
            start = time.perf_counter()
            run(split)
            return split.rows / (time.perf_counter() - start)

        def of_peer() -> float:
            loader = make_loader(split, items, batch_size=args.batch, length=N, shuffle=args.what == "train")
            batches = iter(loader)
            start = time.perf_counter()
            for _ in range(args.peer_batches):
                if args.what == "train":
                    trainer.step(next(batches))
                else:
                    _predict(peer, next(batches))
            return args.peer_batches * args.batch / (time.perf_counter() - start)

        def _predict(peer: Peer, batch: dict) -> None:
            peer.eval()
            with torch.no_grad():
                peer({name: values.to(args.device) for name, values in batch.items()}).cpu()

        of_peer()  # the first one allocates
        print("| turn | ours, samples/s | peer, samples/s | ratio |")
        print("|---|---|---|---|", flush=True)
        rates = []
        for turn in range(args.turns):
            a, b = of_ours(), of_peer()
            rates.append((a, b))
            print(f"| {turn + 1} | {a:,.0f} | {b:,.1f} | {a / b:.1f} |", flush=True)
    a, b = len(rates) / (1 / np.array(rates)).sum(axis=0)
    print(f"| all | {a:,.0f} | {b:,.1f} | **{a / b:.1f}** |")
