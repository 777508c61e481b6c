"""python -m mmctr_jax.prepare microlens|movielens|interactions SOURCE --out DIR"""

import argparse
from dataclasses import replace
from pathlib import Path

from mmctr_jax import cli
from mmctr_jax.console import log
from mmctr_jax.prepare import interactions, microlens, movielens
from mmctr_jax.prepare.interactions import Columns
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.run import check_free, prepare

_SPLITS = {"microlens": "last", "movielens": "user", "interactions": "time"}  # unless --split says otherwise


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _negatives(text: str) -> int | None:
    return None if text == "logged" else int(text)


_negatives.__name__ = "number of negatives (or 'logged')"  # argparse's message


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mmctr_jax.prepare", description="Raw logs → the files that training takes."
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="SOURCE")
    texts = {
        "microlens": "the published MicroLens files",
        "movielens": "ratings.csv and movies.csv; 4 stars or more is a click",
        "interactions": "any log of clicks: CSV, TSV, Parquet, or a folder of Parquet part files",
    }
    for kind, text in texts.items():
        sub = kinds.add_parser(
            kind, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        sub.add_argument("path", type=Path, help="file of interactions" if kind == "interactions" else "folder")
        sub.add_argument("--out", required=True, type=Path, help="new folder for the prepared files")
        if kind == "interactions":
            _add_columns(sub)
        _add_options(sub, kind)
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("columns of the log")
    group.add_argument("--user", default=Columns.user, metavar="COLUMN", help="user ids")
    group.add_argument("--item", default=Columns.item, metavar="COLUMN", help="item ids")
    group.add_argument("--time", default=Columns.time, metavar="COLUMN", help="numbers, dates, or ISO 8601 text")
    group.add_argument("--label", metavar="COLUMN", help="1 clicked, 0 shown and not clicked (without: all are clicks)")
    group.add_argument("--weight", metavar="COLUMN", help="how much a row counts in the training loss")
    group.add_argument("--side", type=_names, default=(), metavar="COLUMN,…", help="categorical features of a row")
    group = parser.add_argument_group("items")
    group.add_argument("--items", type=Path, metavar="FILE", help="one row per item: CSV, TSV or Parquet")
    group.add_argument("--item-key", metavar="COLUMN", help="item ids there (default: as --item)")
    group.add_argument("--tags", metavar="COLUMN", help="lists, or text with separators")
    group.add_argument("--tag-separator", default=Columns.tag_separator, metavar="TEXT", help="between tags in text")
    group.add_argument(
        "--text", type=_names, default=(), metavar="COLUMN,…", help="joined to the item's text, for embed"
    )


def _add_options(parser: argparse.ArgumentParser, kind: str) -> None:
    group = parser.add_argument_group("choices")
    add = group.add_argument
    add("--split", choices=["user", "time", "last"], default=_SPLITS[kind], help="how test and validation are held out")
    add("--valid", type=float, default=Options.valid, help="share of users (user, last) or of clicks (time)")
    add("--test", type=float, default=Options.test, help="likewise")
    add("--history", type=int, default=Options.history, help="most recent clicks kept of a history")
    add("--min-history", type=int, default=Options.min_history, help="earlier clicks that a sample needs")
    new = "only those on items that the user had not clicked before: with sampled negatives the default, else all"
    add("--clicks", choices=["all", "new"], help=f"which clicks are samples; new: {new}")
    add(
        "--per-user", type=int, metavar="N", help="only the N most recent samples of each user and split (default: all)"
    )
    negatives = "sampled non-clicks per click, or 'logged': the log's own"
    if kind == "interactions":
        negatives += f" (default: logged if the log has any, else {Options.negatives})"
    default = argparse.SUPPRESS if kind == "interactions" else Options.negatives
    add("--negatives", type=_negatives, default=default, help=negatives)
    add("--alpha", type=float, default=Options.alpha, help="negatives are drawn by popularity ** alpha")
    add("--min-item-clicks", type=int, default=Options.min_item_clicks, help="items with fewer in training are dropped")
    rare = "tags on fewer training items, side values in fewer training rows, become unknown"
    add("--min-value-count", type=int, default=Options.min_value_count, help=rare)
    which = "numeric item columns, or 'clicks' (in training), that become levels of the target"
    defaults = {"microlens": ("likes", "views")}.get(kind, ("clicks",))
    add("--levels", type=_names, default=defaults, metavar="COLUMN,…", help=which)
    add("--bins", type=int, default=Options.bins, help="levels a column has")
    add("--seed", type=int, default=Options.seed, help="of the choice of users and negatives")


def main() -> int:
    args = vars(_parser().parse_args())
    kind, path, out = args.pop("kind"), args.pop("path"), args.pop("out")
    check_free(out)
    columns = {name: args.pop(name) for name in list(args) if name in Columns.__dataclass_fields__}
    items = args.pop("items", None)
    options = Options(**args)
    if kind == "interactions":
        columns["item_key"] = columns["item_key"] or columns["item"]
        numeric = tuple(name for name in options.levels if name != "clicks")
        source = interactions.read(path, items, Columns(**columns, numeric=numeric))
        if "negatives" not in args and source.has_non_clicks:
            options = replace(options, negatives=None)
    else:
        source = {"microlens": microlens, "movielens": movielens}[kind].read(path)
    manifest = prepare(kind, source, options, out)
    for note in manifest["notes"]:
        log.info(f"Note: {note}")
    log.info(
        f"Prepared {manifest['interactions']:,} interactions of {manifest['users']:,} users with "
        f"{manifest['items']:,} items. Next: python train.py --config {out / f'{out.name}.yaml'}"
    )
    return 0


if __name__ == "__main__":
    cli.run_main(main)
