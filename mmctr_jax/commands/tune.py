"""mmctr tune --config BASE.yaml --space SPACE.yaml --out DIR [section.key=value ...] [--one-at-a-time]"""

import argparse
from pathlib import Path

from mmctr_jax.console import log
from mmctr_jax.devices.compilation import keep_compiled_programs
from mmctr_jax.interrupt import EXIT_CODE


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="mmctr tune", description="Search for the settings that serve the data best.")
    parser.add_argument("--config", required=True, type=Path, metavar="BASE", help="what the space is laid over")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings for all runs")
    parser.add_argument("--space", required=True, type=Path, help="the fields to vary, see configs/tune/table1.yaml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the runs and results")
    parser.add_argument("--sampler", choices=("tpe", "random", "grid"), help="what to try next (default: tpe)")
    parser.add_argument("--trials", type=int, help="in all, of every process (default: 20; with grid, all of it)")
    parser.add_argument("--no-pruning", action="store_true", default=None, help="let every trial run to its end")
    parser.add_argument("--seed", type=int, help="of what is tried, not of the runs (default: 1)")
    parser.add_argument("--storage", metavar="URL", help="of the study, for Optuna (default: SQLite in DIR)")
    parser.add_argument("--test", action="store_true", default=None, help="score the test file, once, with the winner")
    parser.add_argument("--one-at-a-time", action="store_true", help="vary each field by itself, over several seeds")
    parser.add_argument("--seeds", type=int, help="seeds 1 … N of --one-at-a-time (default: 3)")
    args = parser.parse_intermixed_args(arguments)
    of_search = ("sampler", "trials", "no_pruning", "seed", "storage", "test")
    idle = [name for name in (of_search if args.one_at_a_time else ("seeds",)) if getattr(args, name) is not None]
    if idle:
        but = "has no meaning with" if args.one_at_a_time else "has a meaning only with"
        parser.error(f"--{idle[0].replace('_', '-')} {but} --one-at-a-time")
    for name in ("trials", "seeds"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.seed is not None and not 0 <= args.seed < 2**31:
        parser.error("--seed must be from 0 to 2147483647")
    keep_compiled_programs()

    from mmctr_jax.experiments.space import read_space

    space = read_space(args.config, args.overrides, args.space)
    try:
        if args.one_at_a_time:
            from mmctr_jax.experiments.sensitivity import one_at_a_time

            table = "sensitivity.md"
            finished = one_at_a_time(space, list(range(1, (args.seeds or 3) + 1)), args.out)
        else:
            from mmctr_jax.experiments.search import search  # not above: it needs Optuna

            table = "search.md"
            finished = search(
                space,
                args.out,
                sampler=args.sampler or "tpe",
                trials=args.trials,
                pruning=not args.no_pruning,
                seed=1 if args.seed is None else args.seed,
                storage=args.storage,
                score_test=bool(args.test),
            )
    except KeyboardInterrupt:  # outside of a training, which saves
        finished = False
    if not finished:
        log.info("Interrupted. To go on: the same command.")
        return EXIT_CODE
    print((args.out / table).read_text(), end="")
    log.info(f"{table}, its pictures and the runs are in {args.out}.")
    return 0
