"""mmctr prepare SOURCE PATH --out DIR"""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from mmctr_jax import interrupt
from mmctr_jax.files import expanded
from mmctr_jax.prepare import interactions, microlens, movielens
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.source import Source, SourceKind, comma_separated
from mmctr_jax.remote import local

if TYPE_CHECKING:
    from mmctr_jax.prepare.totals import Shards

SOURCES = {"microlens": microlens.KIND, "movielens": movielens.KIND, "interactions": interactions.KIND}


def main(arguments: list[str]) -> int:
    """Runs `mmctr prepare`; returns its exit code."""
    args = _parser().parse_args(arguments)

    with interrupt.deferred():
        from mmctr_jax.console import log
        from mmctr_jax.prepare.earlier import read_earlier
        from mmctr_jax.prepare.pipeline import check_free, moment, prepare

    check_free(args.out)
    on_spark = getattr(args, "engine", "local") == "spark"
    if not on_spark:  # whose machines read it in place
        args.path = local(args.path)
    if getattr(args, "items", None):
        args.items = local(args.items)
    options = Options(**{f.name: getattr(args, f.name) for f in fields(Options) if hasattr(args, f.name)})
    args.earlier = earlier = read_earlier(args.like) if args.like else None
    with _on_spark(args) if on_spark else nullcontext((SOURCES[args.source].read(args), None)) as (source, shards):
        if not hasattr(args, "negatives") and source.has_non_clicks:
            options = replace(options, negatives=None)
        if args.from_time is not None:
            options = replace(options, since=moment(args.from_time, source))
        manifest = prepare(args.source, source, options, args.out, earlier, shards)
    for note in manifest["notes"]:
        log.info(f"Note: {note}")
    log.info(
        f"Prepared {manifest['interactions']:,} interactions of {manifest['users']:,} users with "
        f"{manifest['items']:,} items. Next: mmctr train --config {manifest['folder']}/{args.out.name}.yaml"
    )
    return 0


def _on_spark(args: argparse.Namespace) -> AbstractContextManager[tuple[Source, Shards]]:
    from mmctr_jax.prepare.spark import reading

    earlier = args.earlier.columns if args.earlier else None
    return reading(args.path, args.items, interactions.columns_of(args), earlier, args.out, args.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmctr prepare",
        description="Raw logs → the files that training takes.",
        epilog="What every choice means: docs/preparing.md.",
    )
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, kind in SOURCES.items():
        of_source = sources.add_parser(name, help=kind.help, description=kind.help)
        of_source.add_argument("path", type=expanded, help=kind.path)
        of_source.add_argument("--out", required=True, type=expanded, help="new folder for the prepared files")
        like = "number ids as this prepared folder, or the one of this run, did; what is new comes after that"
        of_source.add_argument("--like", type=expanded, metavar="RUN|DIR", help=like)
        kind.add_arguments(of_source)
        _add_options(of_source, kind)
    return parser


def _add_options(parser: argparse.ArgumentParser, kind: SourceKind) -> None:
    group = parser.add_argument_group("choices")

    def add(name: str, default: object, text: str, **settings: object) -> None:
        shown = ",".join(default) if isinstance(default, tuple) else default
        text += "" if default in (None, argparse.SUPPRESS) else f" (default: {shown})"
        group.add_argument(name, default=default, help=text, **settings)

    add("--split", kind.split, "how test and validation are held out", choices=["user", "time", "last"])
    add("--valid", Options.valid, "share of users (user, last) or of clicks (time)", type=float)
    add("--test", Options.test, "likewise", type=float)
    add("--history", Options.history, "most recent clicks kept of a history", type=int)
    fewest = "earlier clicks that a sample needs (default: 0 with the log's own non-clicks, else 1)"
    add("--min-history", None, fewest, type=int)
    new = "only those on items that the user had not clicked before (default: new with sampled negatives, else all)"
    add("--clicks", None, f"which clicks are samples; new: {new}", choices=["all", "new"])
    recent = "only the N most recent samples of each user and split (default: all)"
    add("--per-user", None, recent, type=int, metavar="N")
    since = "only interactions from then on are samples; histories go farther back (default: all)"
    add("--since", None, since, metavar="TIME", dest="from_time")
    negatives, default = "sampled non-clicks per click, or 'logged': the log's own", Options.negatives
    if kind.logged_negatives:
        negatives += f" (default: logged if the log has any, else {default})"
        default = argparse.SUPPRESS  # left out, so that `main` sees that nothing was chosen
    add("--negatives", default, negatives, type=_negatives)
    add("--alpha", Options.alpha, "negatives are drawn by popularity ** alpha", type=float)
    add("--min-item-clicks", Options.min_item_clicks, "items with fewer in training are dropped", type=int)
    rare = "tags on fewer training items, side values in fewer training rows, become unknown"
    add("--min-value-count", Options.min_value_count, rare, type=int)
    which = "numeric item columns, or 'clicks' (in training), that become levels of the target"
    add("--levels", kind.levels, which, type=comma_separated, metavar="COLUMN,…")
    add("--bins", Options.bins, "levels a column has", type=int)
    add("--seed", Options.seed, "of the choice of users and negatives", type=int)


def _negatives(text: str) -> int | None:
    return None if text == "logged" else int(text)


_negatives.__name__ = "number of negatives (or 'logged')"  # argparse's message
