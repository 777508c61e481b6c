"""mmctr prepare SOURCE PATH --out DIR"""

import argparse
from dataclasses import replace
from pathlib import Path

from mmctr_jax.console import log
from mmctr_jax.prepare import interactions, microlens, movielens
from mmctr_jax.prepare.interactions import Columns
from mmctr_jax.prepare.options import Options
from mmctr_jax.prepare.pipeline import check_free, prepare

_SPLITS = {"microlens": "last", "movielens": "user", "interactions": "time"}  # unless --split says otherwise


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _negatives(text: str) -> int | None:
    return None if text == "logged" else int(text)


_negatives.__name__ = "number of negatives (or 'logged')"  # argparse's message


def _separator(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a separator has at least one character")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmctr prepare",
        description="Raw logs → the files that training takes.",
        epilog="What every choice means: docs/preparing.md.",
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="SOURCE")
    texts = {
        "microlens": "the published MicroLens files",
        "movielens": "ratings.csv and movies.csv; 4 stars or more is a click",
        "interactions": "any log of clicks: CSV, TSV, Parquet, or a folder of Parquet part files",
    }
    for kind, text in texts.items():
        sub = kinds.add_parser(kind, help=text, description=text)
        sub.add_argument("path", type=Path, help="the log" if kind == "interactions" else "folder of the files")
        sub.add_argument("--out", required=True, type=Path, help="new folder for the prepared files")
        if kind == "interactions":
            _add_columns(sub)
        _add_options(sub, kind)
    return parser


def _add_columns(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("columns of the log").add_argument
    add("--user", default=Columns.user, metavar="COLUMN", help="user ids (default: %(default)s)")
    add("--item", default=Columns.item, metavar="COLUMN", help="item ids (default: %(default)s)")
    add("--time", default=Columns.time, metavar="COLUMN", help="numbers, dates or ISO 8601 text (default: %(default)s)")
    add("--label", metavar="COLUMN", help="1 clicked, 0 shown and not clicked (without: all are clicks)")
    add("--weight", metavar="COLUMN", help="how much a row counts in the training loss")
    add("--side", type=_names, default=(), metavar="COLUMN,…", help="categorical features of a row")
    add = parser.add_argument_group("items").add_argument
    add("--items", type=Path, metavar="FILE", help="one row per item: CSV, TSV or Parquet")
    add("--item-key", metavar="COLUMN", help="item ids there (default: as --item)")
    add("--tags", metavar="COLUMN", help="lists, or text with separators")
    separator = "between tags in text (default: %(default)s)"
    add("--tag-separator", type=_separator, default=Columns.tag_separator, metavar="TEXT", help=separator)
    add("--text", type=_names, default=(), metavar="COLUMN,…", help="joined to the item's text, for embed")


def _add_options(parser: argparse.ArgumentParser, kind: str) -> None:
    group = parser.add_argument_group("choices")

    def add(name: str, default: object, text: str, **options: object) -> None:
        shown = ",".join(default) if isinstance(default, tuple) else default
        text += "" if default in (None, argparse.SUPPRESS) else f" (default: {shown})"
        group.add_argument(name, default=default, help=text, **options)

    add("--split", _SPLITS[kind], "how test and validation are held out", choices=["user", "time", "last"])
    add("--valid", Options.valid, "share of users (user, last) or of clicks (time)", type=float)
    add("--test", Options.test, "likewise", type=float)
    add("--history", Options.history, "most recent clicks kept of a history", type=int)
    add("--min-history", Options.min_history, "earlier clicks that a sample needs", type=int)
    new = "only those on items that the user had not clicked before (default: new with sampled negatives, else all)"
    add("--clicks", None, f"which clicks are samples; new: {new}", choices=["all", "new"])
    add(
        "--per-user",
        None,
        "only the N most recent samples of each user and split (default: all)",
        type=int,
        metavar="N",
    )
    negatives = "sampled non-clicks per click, or 'logged': the log's own"
    if kind == "interactions":
        negatives += f" (default: logged if the log has any, else {Options.negatives})"
    default = argparse.SUPPRESS if kind == "interactions" else Options.negatives
    add("--negatives", default, negatives, type=_negatives)
    add("--alpha", Options.alpha, "negatives are drawn by popularity ** alpha", type=float)
    add("--min-item-clicks", Options.min_item_clicks, "items with fewer in training are dropped", type=int)
    rare = "tags on fewer training items, side values in fewer training rows, become unknown"
    add("--min-value-count", Options.min_value_count, rare, type=int)
    which = "numeric item columns, or 'clicks' (in training), that become levels of the target"
    levels = ("likes", "views") if kind == "microlens" else ("clicks",)
    add("--levels", levels, which, type=_names, metavar="COLUMN,…")
    add("--bins", Options.bins, "levels a column has", type=int)
    add("--seed", Options.seed, "of the choice of users and negatives", type=int)


def main(arguments: list[str]) -> int:
    args = vars(_parser().parse_args(arguments))
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
