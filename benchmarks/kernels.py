"""Where the time of a training step goes on a GPU: the profiler's kernels, summed by name, the longest first."""

import argparse
import collections
import re
import tempfile
from pathlib import Path

import jax

from benchmarks.flops import N
from benchmarks.generate import made_up_batch, made_up_items
from benchmarks.harness import Table
from benchmarks.published import MeasuredModel, published_config


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run kernels")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--length", type=int, default=4, help=f"clicks of every history, at most {N}")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="such as train.precision=bfloat16")
    args = parser.parse_args(argv)
    model = MeasuredModel(published_config(*args.overrides), made_up_items())
    batch = jax.device_put(made_up_batch(args.batch, args.length))
    jax.block_until_ready([model.step(batch) for _ in range(3)])
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            jax.block_until_ready([model.step(batch) for _ in range(args.steps)])
        _print(next(Path(folder).rglob("*.xplane.pb")), args.steps, args.top)


def _print(trace: Path, steps: int, top: int) -> None:
    """The kernels of a trace, by name without its number: how many a step, milliseconds a step, share."""
    planes = jax.profiler.ProfileData.from_file(str(trace)).planes
    # A stream of the device is one line of its plane; the other lines repeat what ran on it, by module and operation.
    lines = [line for plane in planes if "GPU" in plane.name for line in plane.lines if line.name.startswith("Stream")]
    if not lines:
        raise SystemExit("The trace holds no kernel: JAX runs on no GPU here.")
    events = [event for line in lines for event in line.events]
    count, time = collections.Counter(), collections.Counter()
    for event in events:
        name = re.sub(r"(_\d+)+$", "", event.name)
        count[name] += 1
        time[name] += event.duration_ns / 1e6 / steps
    busy, first = sum(time.values()), min(event.start_ns for event in events)
    wall = (max(event.start_ns + event.duration_ns for event in events) - first) / 1e6 / steps
    print(f"{len(events) / steps:.0f} kernels and copies a step; {busy:.2f} ms of {wall:.2f} ms\n")
    table = Table("kernel", "a step", "ms a step", "share")
    for name, milliseconds in time.most_common(top):
        table.row(f"`{name}`", f"{count[name] / steps:.1f}", f"{milliseconds:.3f}", f"{milliseconds / busy:.1%}")
