"""mmctr tune --config BASE.yaml --space SPACE.yaml --out DIR [section.key=value ...] [--one-at-a-time]"""

import argparse

from mmctr_jax import interrupt
from mmctr_jax.files import expanded
from mmctr_jax.remote import place_here

_OF_A_SEARCH = ("sampler", "trials", "no_pruning", "seed", "storage", "test")
_OF_ONE_AT_A_TIME = ("seeds",)


def main(arguments: list[str]) -> int:
    """Runs `mmctr tune`; returns its exit code."""
    args = _parse(arguments)

    with interrupt.deferred():
        from mmctr_jax.console import log
        from mmctr_jax.devices.compilation import keep_compiled_programs
        from mmctr_jax.experiments.space import read_space

        if args.one_at_a_time:
            from mmctr_jax.experiments.sensitivity import one_at_a_time
        else:
            from mmctr_jax.experiments.search import search  # needs Optuna, the other does not

    keep_compiled_programs()
    space = read_space(args.config, args.overrides, args.space)
    try:
        if args.one_at_a_time:
            table = "sensitivity.md"
            finished = one_at_a_time(space, list(range(1, (args.seeds or 3) + 1)), args.out)
        else:
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
        log.info("Interrupted. To continue, run the same command again.")
        return interrupt.EXIT_CODE
    print((args.out / table).read_text(), end="")
    log.info(f"{table}, its pictures and the runs are in {args.out}.")
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    """The arguments; None for each that was not given, so that one without effect is refused instead of ignored."""
    parser = argparse.ArgumentParser(
        prog="mmctr tune", description="Search for good settings, or vary them one at a time."
    )
    parser.add_argument("--config", required=True, type=expanded, metavar="BASE", help="the config that is varied")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings for all runs")
    parser.add_argument(
        "--space", required=True, type=expanded, help="the fields to vary, see configs/tune/table1.yaml"
    )
    parser.add_argument("--out", type=place_here, required=True, metavar="DIR", help="folder of the runs and results")
    parser.add_argument("--sampler", choices=("tpe", "random", "grid"), help="what to try next (default: tpe)")
    parser.add_argument(
        "--trials", type=int, help="how many, of all processes together (default: 20; with grid, the whole grid)"
    )
    parser.add_argument("--no-pruning", action="store_true", default=None, help="let every trial run to its end")
    parser.add_argument("--seed", type=int, help="of what is tried, not of the runs (default: 1)")
    parser.add_argument("--storage", metavar="URL", help="of the study, for Optuna (default: SQLite in DIR)")
    parser.add_argument("--test", action="store_true", default=None, help="score the test file, once, with the winner")
    parser.add_argument("--one-at-a-time", action="store_true", help="vary each field by itself, over several seeds")
    parser.add_argument("--seeds", type=int, help="seeds 1 … N of --one-at-a-time (default: 3)")
    args = parser.parse_intermixed_args(arguments)
    for name in _OF_A_SEARCH if args.one_at_a_time else _OF_ONE_AT_A_TIME:
        if getattr(args, name) is not None:
            has = "has no meaning with" if args.one_at_a_time else "has a meaning only with"
            parser.error(f"--{name.replace('_', '-')} {has} --one-at-a-time")
    for name in ("trials", "seeds"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if args.seed is not None and not 0 <= args.seed < 2**31:
        parser.error("--seed must be from 0 to 2147483647")
    return args
